# The lanes: one source, compiled once for each instruction set with its flags and the suffix of its
# symbols; kernels/dispatch.c chooses at run time. Only these objects may hold instructions beyond
# the baseline: everything else in the room is built with the default flags.
file(GLOB lanes_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cpu/lanes/*.c)

function(kernels_lanes isa)
  add_library(kernels_${isa} OBJECT ${lanes_sources})
  target_compile_definitions(kernels_${isa} PRIVATE LANES_ISA=${isa})
  target_compile_options(kernels_${isa} PRIVATE ${ARGN})
  target_link_libraries(kernels_${isa} PRIVATE sigmoe_flags)
  target_sources(kernels PRIVATE $<TARGET_OBJECTS:kernels_${isa}>)
endfunction()

kernels_lanes(portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(avx512_flags -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
      -mprefer-vector-width=512)
  kernels_lanes(avx2 -mavx2 -mfma -mf16c)
  kernels_lanes(avx512 ${avx512_flags})
endif()
