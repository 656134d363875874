# What every room is built with, and the functions that make a room and its tests.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(ZMQ REQUIRED IMPORTED_TARGET libzmq)
pkg_check_modules(PROTOBUFC REQUIRED IMPORTED_TARGET libprotobuf-c)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(sigmoe_flags INTERFACE)
target_include_directories(sigmoe_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/gen)
target_compile_definitions(sigmoe_flags INTERFACE _GNU_SOURCE SIGMOE_VERSION="${PROJECT_VERSION}")
# -ffp-contract=off: a multiply-add is fused where the source says fma and nowhere else, so that
# every instruction set and both compilers compute the same bits.
set(c_flags -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -fno-common
    -ffp-contract=off -fno-strict-aliasing)
if(SIGMOE_WERROR)
  list(APPEND c_flags -Werror)
endif()
target_compile_options(sigmoe_flags INTERFACE "$<$<COMPILE_LANGUAGE:C>:${c_flags}>")
if(SIGMOE_SANITIZE)
  target_compile_options(sigmoe_flags INTERFACE -fsanitize=${SIGMOE_SANITIZE}
      -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(sigmoe_flags INTERFACE -fsanitize=${SIGMOE_SANITIZE})
endif()

# sigmoe_room(NAME ROOMS lower... LIBS external...): static library of NAME/*.c and NAME/*/*.c.
# A room with a room.cmake of its own (kernels, proto) adds what a glob cannot know.
function(sigmoe_room name)
  cmake_parse_arguments(ARG "" "" "ROOMS;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/*.c
       ${CMAKE_SOURCE_DIR}/${name}/*/*.c)
  add_library(${name} STATIC ${sources} ${CMAKE_SOURCE_DIR}/cmake/empty.c)
  target_link_libraries(${name} PUBLIC ${ARG_ROOMS} ${ARG_LIBS} PRIVATE sigmoe_flags)
  if(EXISTS ${CMAKE_SOURCE_DIR}/${name}/room.cmake)
    include(${CMAKE_SOURCE_DIR}/${name}/room.cmake)
  endif()
endfunction()

# sigmoe_unit_tests(ROOM): one executable and one ctest entry for each tests/unit/ROOM/*_test.c. The
# other .c files there (a simulator, a builder of inputs) are a library that each of them links.
function(sigmoe_unit_tests room)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/unit/${room}/*.c)
  set(helpers ${sources})
  list(FILTER sources INCLUDE REGEX "_test\\.c$")
  list(FILTER helpers EXCLUDE REGEX "_test\\.c$")
  if(helpers)
    add_library(${room}_test_helpers STATIC ${helpers})
    target_link_libraries(${room}_test_helpers PRIVATE ${room} PkgConfig::CMOCKA sigmoe_flags)
  endif()
  foreach(source ${sources})
    get_filename_component(stem ${source} NAME_WE)
    set(target ${room}_${stem})
    add_executable(${target} ${source})
    if(helpers)
      target_link_libraries(${target} PRIVATE ${room}_test_helpers)
    endif()
    target_link_libraries(${target} PRIVATE ${room} PkgConfig::CMOCKA sigmoe_flags)
    target_compile_definitions(${target} PRIVATE TESTS_DIR="${CMAKE_SOURCE_DIR}/tests"
        SHARED_DIR="${CMAKE_SOURCE_DIR}/../shared")
    add_test(NAME unit/${room}/${stem} COMMAND ${target})
    set_tests_properties(unit/${room}/${stem} PROPERTIES LABELS "unit;fast" TIMEOUT 900
        SKIP_RETURN_CODE 77)
  endforeach()
endfunction()
