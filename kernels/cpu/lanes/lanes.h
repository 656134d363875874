/* lanes: the names of what each instruction set provides. The sources beside this header are
 * compiled once for each, with -DLANES_ISA=avx2 and the like, and every symbol carries that suffix,
 * so that all versions live in one program. table.c gathers them into a struct kernels. */
#ifndef KERNELS_LANES_H
#define KERNELS_LANES_H

#include "kernels/kernels.h"

#define LANES_CAT2(a, b) a##_##b
#define LANES_CAT(a, b)  LANES_CAT2(a, b)
#define LANES_STR2(a)    #a
#define LANES_STR(a)     LANES_STR2(a)
/* LANES_NAME(matmul) is matmul_avx2. */
#define LANES_NAME(name) LANES_CAT(name, LANES_ISA)

/* LANES_CAT(LANES_ID, LANES_ISA) is the enum isa of these symbols. */
#define LANES_ID_portable ISA_PORTABLE
#define LANES_ID_avx2     ISA_AVX2
#define LANES_ID_avx512   ISA_AVX512

#define DECL(name) LANES_NAME(name)
#include "kernels/cpu/lanes/names.h"
#undef DECL

#endif
