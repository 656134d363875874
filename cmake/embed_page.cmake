# Writes a C table of the web page's files (coordinator/page.h), so that the program needs no folder
# beside it: cmake -DFOLDER=ui -DOUT=page_assets.c -P embed_page.cmake
set(types
    ".html=text/html\; charset=utf-8" ".js=text/javascript\; charset=utf-8"
    ".css=text/css\; charset=utf-8" ".svg=image/svg+xml")
file(GLOB names RELATIVE ${FOLDER} ${FOLDER}/*)
list(SORT names)
set(arrays "")
set(table "")
set(i 0)
foreach(name ${names})
  get_filename_component(extension ${name} LAST_EXT)
  set(type "")
  foreach(pair IN LISTS types)
    if("${pair}" MATCHES "^\\${extension}=(.*)$")
      set(type "${CMAKE_MATCH_1}")
    endif()
  endforeach()
  if(type STREQUAL "")
    message(FATAL_ERROR "embed: ${name}: no media type for ${extension}; name one in embed_page.cmake")
  endif()
  set(path "/ui/${name}")
  if(name STREQUAL "index.html")
    set(path "/")
  endif()
  file(READ ${FOLDER}/${name} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REGEX REPLACE "(................................................................................)"
         "\\1\n    " bytes "${bytes}")
  string(APPEND arrays "static const unsigned char file_${i}[] = {\n    ${bytes}\n};\n")
  string(APPEND table "    {\"${path}\", \"${type}\", file_${i}, sizeof(file_${i})},\n")
  math(EXPR i "${i} + 1")
endforeach()
file(WRITE ${OUT} "/* Made by cmake/embed_page.cmake from coordinator/ui. */\n"
     "#include \"coordinator/page.h\"\n\n${arrays}\n"
     "const struct api_asset page_assets[] = {\n${table}};\nconst int page_n_asset = ${i};\n")
