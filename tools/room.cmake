# The Python files that make transformers read a PanGu-Sigma checkpoint travel inside the program, so
# that every checkpoint that a tool writes has them beside it.
foreach(name configuration modeling)
  set(file ${CMAKE_SOURCE_DIR}/tools/hf/${name}_pangu_sigma.py)
  set(out ${CMAKE_BINARY_DIR}/gen/tools/hf_${name}.c)
  add_custom_command(OUTPUT ${out}
      COMMAND ${CMAKE_COMMAND} -D FILE=${file} -D SYMBOL=hf_${name} -D OUT=${out}
              -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
      DEPENDS ${file} ${CMAKE_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
  target_sources(tools PRIVATE ${out})
endforeach()

# So does the page of a load-test report.
set(out ${CMAKE_BINARY_DIR}/gen/tools/report_page.c)
add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -D FILE=${CMAKE_SOURCE_DIR}/tools/report.html -D SYMBOL=report_page
            -D OUT=${out} -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${CMAKE_SOURCE_DIR}/tools/report.html ${CMAKE_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
target_sources(tools PRIVATE ${out})
