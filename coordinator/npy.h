/* npy: an array of small integers as the text of a NumPy file (format 1.0), base64: how routing
 * reaches clients (vLLM's `routed_experts`), who read it with numpy.load. */
#ifndef COORDINATOR_NPY_H
#define COORDINATOR_NPY_H

/* npy_base64: data [n, n_layer, top_k], each of `bytes` (1: uint8, 2: uint16, 4: int32)
 * little-endian bytes. malloc'd, NUL-terminated; NULL: no memory. */
char *npy_base64(const void *data, int n, int n_layer, int top_k, int bytes);

#endif
