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

# Portable code hands vectors of the compiler between its own inline functions; no ABI is involved.
kernels_lanes(portable -Wno-psabi)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(avx512_flags -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c
      -mprefer-vector-width=512)
  kernels_lanes(avx2 -mavx2 -mfma -mf16c)
  kernels_lanes(avx512 ${avx512_flags})

  # Tile units: the matmul, ffn and attention of the lanes over other products. LANES_TILES is the fewest rows that use
  # tiles. The simulated variant is linked into tests only.
  set(tiles_sources kernels/cpu/lanes/matmul.c kernels/cpu/lanes/ffn.c
      kernels/cpu/lanes/attention.c kernels/cpu/lanes/attention_split.c kernels/cpu/amx/table.c)
  function(kernels_tiles isa rest min_rows numerics)
    add_library(kernels_${isa} OBJECT ${tiles_sources})
    target_compile_definitions(kernels_${isa} PRIVATE LANES_ISA=${isa} LANES_REST=${rest}
        LANES_TILES=${min_rows} AMX_NUMERICS="${numerics}")
    target_compile_options(kernels_${isa} PRIVATE ${ARGN})
    target_link_libraries(kernels_${isa} PRIVATE sigmoe_flags)
    target_sources(kernels PRIVATE $<TARGET_OBJECTS:kernels_${isa}>)
  endfunction()
  set(amx_flags ${avx512_flags} -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8)
  kernels_tiles(amx avx512 3 sum32 ${amx_flags})
  # Few units need it, and a sanitizer takes a minute to compile it.
  if(NOT SIGMOE_SANITIZE)
    kernels_tiles(amx_own avx512 1 amx ${amx_flags})
  endif()
  kernels_tiles(tile_sim portable 1 sum32 -DTILES_SIMULATED -Wno-psabi)
  add_library(kernels_amx_block OBJECT kernels/cpu/amx/block.c)
  target_compile_options(kernels_amx_block PRIVATE ${amx_flags})
  target_link_libraries(kernels_amx_block PRIVATE sigmoe_flags)
  target_sources(kernels PRIVATE $<TARGET_OBJECTS:kernels_amx_block>)
endif()

sigmoe_cuda_kernels(kernels)
