/* amx: matrix products on tile units (AMX-BF16), for bf16 weights; everything else of its tables is
 * AVX-512's. amx_sum.c says what is checked before a table is handed out. */
#ifndef KERNELS_AMX_H
#define KERNELS_AMX_H

#include "kernels/kernels.h"

/* kernels_amx computes THE SUM and uses tiles where rows are many. kernels_amx_own is for a unit
 * whose products round otherwise: tiles for every row count, and a numerics class of its own. */
extern const struct kernels kernels_amx, kernels_amx_own;

/* amx_is_sum compares tile products of some hundred random blocks with THE SUM, bit by bit. The
 * caller has made sure that the CPU has tiles and that the kernel lets this process use them. */
int amx_is_sum(void);

#endif
