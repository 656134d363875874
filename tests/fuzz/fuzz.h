/* fuzz: the one function a fuzz target is, as libFuzzer calls it (llvm.org/docs/LibFuzzer.html). */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
