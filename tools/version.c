/* version: what a bug report needs to say about a build: the compiler, the instruction sets that
 * this CPU offers to it, and the libraries it found, each in the version that runs, not that
 * compiled. */
#include "base/team.h"
#include "kernels/kernels.h"
#include "tools/commands.h"

#include <protobuf-c/protobuf-c.h>
#include <stdio.h>
#include <zmq.h>

static const char *compiler_name(void)
{
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}

static void isa_print(void)
{
    const struct kernels *best = NULL;
    printf("kernels:");
    for (int isa = 0; isa < ISA_COUNT; isa++)
        if (kernels_of((enum isa)isa))
            printf(" %s", isa_name((enum isa)isa));
    if (kernels_open(&best, NULL) == 0)
        printf(" (runs %s; SIGMOE_ISA chooses)", isa_name(best->isa));
    printf("; %d CPUs\n", cpu_count());
}

void version_print(void)
{
    int major, minor, patch;
    zmq_version(&major, &minor, &patch);
    printf("sigmoe %s\n", SIGMOE_VERSION);
    printf("compiler: %s\n", compiler_name());
    isa_print();
    printf("libzmq %d.%d.%d, protobuf-c %s\n", major, minor, patch, protobuf_c_version());
    printf("CUDA toolkit at build: %s\n", SIGMOE_CUDA[0] ? SIGMOE_CUDA : "not found, CPU only");
}
