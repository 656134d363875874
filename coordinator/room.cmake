# The web page (coordinator/ui) is compiled in: plain files, no build step but this copy.
file(GLOB ui CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/coordinator/ui/*)
set(page ${CMAKE_BINARY_DIR}/gen/coordinator/page_assets.c)
add_custom_command(
  OUTPUT ${page}
  COMMAND ${CMAKE_COMMAND} -DFOLDER=${CMAKE_SOURCE_DIR}/coordinator/ui -DOUT=${page}
          -P ${CMAKE_SOURCE_DIR}/cmake/embed_page.cmake
  DEPENDS ${ui} ${CMAKE_SOURCE_DIR}/cmake/embed_page.cmake
  VERBATIM)
target_sources(coordinator PRIVATE ${page})
