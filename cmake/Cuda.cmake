# CUDA is found when present and never required: kernels/cuda is compiled only where nvcc is, and
# worker/gpu_none.c says so elsewhere. Give another nvcc by -DCMAKE_CUDA_COMPILER.
option(SIGMOE_CUDA "Build the CUDA kernels where nvcc is found" ON)
if(SIGMOE_CUDA AND NOT SIGMOE_SANITIZE)
  include(CheckLanguage)
  check_language(CUDA)
endif()
if(CMAKE_CUDA_COMPILER)
  # Hopper's own code; others from Ampere on make theirs of the PTX when they first meet it.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-virtual 90-real)
  endif()
  enable_language(CUDA)
  # Programs are C programs: who links them is not changed by what a library was made from.
  set(CMAKE_CUDA_LINKER_PREFERENCE_PROPAGATES 0)
  find_package(CUDAToolkit REQUIRED)
  set(SIGMOE_CUDA_FOUND ${CUDAToolkit_VERSION})
endif()
message(STATUS "CUDA toolkit: ${SIGMOE_CUDA_FOUND} (empty: not found, CPU only)")

# sigmoe_cuda_kernels(ROOM): ROOM/cuda/*.cu. A multiply-add is fused where the source says so and
# nowhere else, divisions are those of IEEE 754 and denormals are flushed: the CPUs' bits.
function(sigmoe_cuda_kernels room)
  if(NOT SIGMOE_CUDA_FOUND)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${room}/cuda/*.cu)
  add_library(${room}_cuda OBJECT ${sources})
  target_include_directories(${room}_cuda PRIVATE ${CMAKE_SOURCE_DIR})
  set_target_properties(${room}_cuda PROPERTIES CUDA_STANDARD 17)
  target_compile_options(${room}_cuda PRIVATE --fmad=false --ftz=true --prec-div=true
      --prec-sqrt=true -Xcompiler=-Wall)
  if(SIGMOE_WERROR)
    target_compile_options(${room}_cuda PRIVATE --Werror=all-warnings)
  endif()
  target_sources(${room} PRIVATE $<TARGET_OBJECTS:${room}_cuda>)
  target_link_libraries(${room} PUBLIC CUDA::cudart_static stdc++)
endfunction()

# sigmoe_cuda_choice(ROOM WITH WITHOUT): of two files of a room the one that can be compiled.
function(sigmoe_cuda_choice room with without)
  set(unused ${with})
  if(SIGMOE_CUDA_FOUND)
    set(unused ${without})
    target_link_libraries(${room} PRIVATE CUDA::cudart_static)
  endif()
  set_source_files_properties(${CMAKE_SOURCE_DIR}/${room}/${unused} PROPERTIES HEADER_FILE_ONLY ON)
endfunction()
