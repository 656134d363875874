/* driver: a fuzz target in ordinary tests, whatever the compiler: replays every file of a corpus,
 * then mutations of them that depend on a fixed seed and the number of the round alone. PROGRAM
 * CORPUS [ROUNDS [SEED]] Prints the round before it crashes with nothing more to say: the mutation
 * can be made again. */
#include "base/rng.h"
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX      1024
#define FILE_MAX       (64 * 1024)
#define ROUNDS_DEFAULT 60000
#define SEED_DEFAULT   1

struct input {
    uint8_t *data;
    size_t size;
};

struct draw {
    uint64_t seed, round, next;
};

static uint32_t draw(struct draw *d, uint32_t below)
{
    uint32_t word[4];
    rng_block(d->seed, d->round, d->next++, word);
    return word[0] % below;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int read_file(const char *dir, const char *name, struct input *out)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return -1;
    out->data = malloc(FILE_MAX);
    out->size = out->data ? fread(out->data, 1, FILE_MAX, f) : 0;
    fclose(f);
    return out->data ? 0 : -1;
}

/* corpus_read: in the order of names, so that rounds mean the same on every file system. */
static int corpus_read(const char *dir, struct input *input)
{
    struct dirent **entry = NULL;
    int n_entry = scandir(dir, &entry, NULL, by_name), n = 0;
    for (int i = 0; i < n_entry; i++) {
        if (entry[i]->d_name[0] != '.' && n < FILES_MAX &&
            read_file(dir, entry[i]->d_name, &input[n]) == 0)
            n++;
        free(entry[i]);
    }
    free(entry);
    return n;
}

/* mutate changes `data` in one to eight places; returns its new size. */
static size_t mutate(struct draw *d, uint8_t *data, size_t size, const struct input *other)
{
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0x08, 0x12, 0x1a};
    for (uint32_t n = 1 + draw(d, 8); n > 0; n--) {
        uint32_t at = size ? draw(d, (uint32_t)size) : 0, len = 1 + draw(d, 16);
        if (len > size - at)
            len = (uint32_t)(size - at);
        switch (draw(d, 6)) {
        case 0:
            if (size)
                data[at] = (uint8_t)(data[at] ^ 1u << draw(d, 8));
            break;
        case 1:
            if (size)
                data[at] = edges[draw(d, sizeof(edges))];
            break;
        case 2: /* cut out */
            memmove(data + at, data + at + len, size - at - len);
            size -= len;
            break;
        case 3: /* double */
            if (size + len <= FILE_MAX) {
                memmove(data + at + len, data + at, size - at);
                size += len;
            }
            break;
        case 4: /* the end of another input */
            if (other->size && at < other->size) {
                memcpy(data + at, other->data + at, other->size - at);
                size = other->size;
            }
            break;
        default:
            size = at + len;
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static struct input input[FILES_MAX];
    static uint8_t data[FILE_MAX];
    uint64_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : ROUNDS_DEFAULT;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : SEED_DEFAULT;
    int n = argc > 1 ? corpus_read(argv[1], input) : 0;
    if (n == 0) {
        fprintf(stderr, "usage: %s CORPUS [ROUNDS [SEED]]; the corpus must hold a file\n", argv[0]);
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("corpus %d files, seed %llu, %llu rounds\n", n, (unsigned long long)seed,
           (unsigned long long)rounds);
    for (int i = 0; i < n; i++)
        LLVMFuzzerTestOneInput(input[i].data, input[i].size);
    for (uint64_t round = 0; round < rounds; round++) {
        struct draw d = {.seed = seed, .round = round};
        const struct input *from = &input[draw(&d, (uint32_t)n)];
        const struct input *other = &input[draw(&d, (uint32_t)n)];
        memcpy(data, from->data, from->size);
        size_t size = mutate(&d, data, from->size, other);
        if (round % 10000 == 0)
            printf("round %llu\n", (unsigned long long)round);
        /* A block of its own size, so that asan sees a read behind its end. */
        uint8_t *exact = malloc(size ? size : 1);
        if (!exact)
            return 1;
        memcpy(exact, data, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    for (int i = 0; i < n; i++)
        free(input[i].data);
    printf("done\n");
    return 0;
}
