/* dispatch: which instruction sets this CPU, operating system and build offer, and the table of
 * one. Nothing is remembered between calls: a question costs some CPUID instructions, and the
 * answer for AMX a check of a few microseconds. SIGMOE_ISA is read here and nowhere else. */
#include "kernels/kernels.h"

#include "base/sanitizer.h"
#include "kernels/cpu/isa.h"
#include <stdlib.h>
#include <string.h>

static const char *const isa_names[ISA_COUNT] = {
    [ISA_PORTABLE] = "portable",
    [ISA_AVX2] = "avx2",
    [ISA_AVX512] = "avx512",
    [ISA_AMX] = "amx",
};

const char *isa_name(enum isa isa)
{
    return (unsigned)isa < ISA_COUNT ? isa_names[isa] : "unknown";
}

#if defined(__x86_64__)

#include "kernels/cpu/amx.h"
#include <cpuid.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

/* XCR0: what the operating system saves at a context switch (Intel SDM vol. 1, 13.3). */
#define XCR0_AVX    0x6u
#define XCR0_AVX512 0xe6u
#define XCR0_AMX    0x60000u

/* For a tile unit that does not compute THE SUM. Builds for a sanitizer have no products of it. */
#if SANITIZER
#define OTHER_UNIT (&kernels_avx512)
#else
#define OTHER_UNIT (&kernels_amx_own)
#endif

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA  18

static uint32_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

struct cpu_bits {
    uint32_t ecx1, ebx7, ecx7, edx7, eax71, xcr0;
};

static int cpu_bits_read(struct cpu_bits *bits)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    bits->ecx1 = c;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    bits->ebx7 = b;
    bits->ecx7 = c;
    bits->edx7 = d;
    bits->eax71 = a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) ? a : 0;
    bits->xcr0 = xcr0();
    return 1;
}

static int has_all(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

static int cpu_has(enum isa isa)
{
    struct cpu_bits bits;
    if (!cpu_bits_read(&bits))
        return isa == ISA_PORTABLE;
    int avx2 = has_all(bits.ecx1, bit_AVX | bit_FMA | bit_F16C) && has_all(bits.ebx7, bit_AVX2) &&
               has_all(bits.xcr0, XCR0_AVX);
    /* The first CPUs with AVX-512 have no VNNI: they go by AVX2. */
    int avx512 = avx2 && has_all(bits.xcr0, XCR0_AVX512) && has_all(bits.ecx7, bit_AVX512VNNI) &&
                 has_all(bits.ebx7, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ);
    /* CPUID.7.0:EDX: bit 24 AMX-TILE, bit 22 AMX-BF16, bit 25 AMX-INT8; 7.1:EAX: bit 5 AVX512-BF16,
     * which every CPU with tiles has. */
    int amx = avx512 && has_all(bits.edx7, 1u << 24 | 1u << 22 | 1u << 25) &&
              has_all(bits.eax71, 1u << 5) && has_all(bits.xcr0, XCR0_AMX);
    const int has[ISA_COUNT] = {1, avx2, avx512, amx};
    return (unsigned)isa < ISA_COUNT && has[isa];
}

/* The kernel grants tile state to a process that asks; asking again is harmless. Holding the unit
 * against THE SUM takes milliseconds (seconds under a sanitizer), so the verdict is kept: a
 * property of the CPU, the same whoever finds it out first. */
static const struct kernels *amx_table(void)
{
    static _Atomic(const struct kernels *) verdict;
    const struct kernels *known = atomic_load(&verdict);
    if (known)
        return known;
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0)
        return NULL;
    known = tile_block_is_sum(tile_block) ? &kernels_amx : OTHER_UNIT;
    atomic_store(&verdict, known);
    return known;
}

const struct kernels *kernels_of(enum isa isa)
{
    if (!cpu_has(isa))
        return NULL;
    switch (isa) {
    case ISA_PORTABLE:
        return &kernels_portable;
    case ISA_AVX2:
        return &kernels_avx2;
    case ISA_AVX512:
        return &kernels_avx512;
    case ISA_AMX:
        return amx_table();
    default:
        return NULL;
    }
}

#else

const struct kernels *kernels_of(enum isa isa)
{
    return isa == ISA_PORTABLE ? &kernels_portable : NULL;
}

#endif

static const struct kernels *kernels_best(void)
{
    for (int isa = ISA_COUNT - 1; isa > ISA_PORTABLE; isa--) {
        const struct kernels *k = kernels_of((enum isa)isa);
        if (k)
            return k;
    }
    return kernels_of(ISA_PORTABLE);
}

static int isa_parse(const char *name, enum isa *isa)
{
    for (int i = 0; i < ISA_COUNT; i++) {
        if (strcmp(name, isa_names[i]) == 0) {
            *isa = (enum isa)i;
            return 0;
        }
    }
    return -1;
}

int kernels_open(const struct kernels **out, struct err *err)
{
    const char *name = getenv("SIGMOE_ISA");
    if (!name || !*name) {
        *out = kernels_best();
        return 0;
    }
    enum isa isa;
    if (isa_parse(name, &isa))
        return err_set(err, ERR_USAGE,
                       "SIGMOE_ISA=%.40s is no instruction set; use portable, avx2, avx512 or amx, "
                       "or unset it",
                       name);
    const struct kernels *k = kernels_of(isa);
    if (!k)
        return err_set(err, ERR_USAGE, "SIGMOE_ISA=%s: this CPU has no %s; the best here is %s",
                       name, name, kernels_best()->name);
    *out = k;
    return 0;
}
