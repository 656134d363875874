# The header's code is generated into the build: proto/sigmoe.pb-c.h, included under that name. It is a
# library of its own because generated code does not keep our warning flags; it takes the sanitizers.
find_program(PROTOC_C protoc-c REQUIRED)
set(gen ${CMAKE_BINARY_DIR}/gen/proto)
file(MAKE_DIRECTORY ${gen})
add_custom_command(
  OUTPUT ${gen}/sigmoe.pb-c.c ${gen}/sigmoe.pb-c.h
  COMMAND ${PROTOC_C} --c_out=${gen} --proto_path=${CMAKE_SOURCE_DIR}/proto sigmoe.proto
  DEPENDS ${CMAKE_SOURCE_DIR}/proto/sigmoe.proto
  VERBATIM)
add_library(proto_gen OBJECT ${gen}/sigmoe.pb-c.c ${gen}/sigmoe.pb-c.h)
target_link_libraries(proto_gen PRIVATE PkgConfig::PROTOBUFC)
if(SIGMOE_SANITIZE)
  target_compile_options(proto_gen PRIVATE -fsanitize=${SIGMOE_SANITIZE} -fno-omit-frame-pointer)
endif()
target_sources(proto PRIVATE $<TARGET_OBJECTS:proto_gen>)
add_dependencies(proto proto_gen)
