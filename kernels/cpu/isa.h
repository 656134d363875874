/* isa: the tables that kernels/cpu/lanes/table.c defines, one for each compilation. */
#ifndef KERNELS_ISA_H
#define KERNELS_ISA_H

#include "kernels/kernels.h"

extern const struct kernels kernels_portable;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2, kernels_avx512;
#endif

#endif
