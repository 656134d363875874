/* import_fuzz: what comes from other programs: a file of torch.save (a zip archive with a pickle in
 * it), the pickle alone, and the base64 text of a NumPy file. What is refused must say why; what
 * passes is as large as it says.
 *
 * The input: a byte that says which (modulo 3), then the data. */
#include "tests/fuzz/fuzz.h"
#include "tools/npy_read.h"
#include "tools/pickle.h"
#include "tools/torch_file.h"

#include <stdio.h>
#include <stdlib.h>

#define N_EXPERT 64

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "import_fuzz: %s\n", what);
    abort();
}

static void try_torch(const uint8_t *data, size_t size)
{
    struct torch_tensor t = {0};
    struct err err = {0};
    double sum = 0;
    if (torch_bytes_tensor(data, size, "input", "logical_count", &t, &err)) {
        require(err.text[0] != '\0', "refused without a word");
        return;
    }
    int64_t n = 1;
    for (int i = 0; i < t.n_dim; i++)
        n *= t.dim[i];
    for (int64_t i = 0; i < n; i++)
        sum += t.value[i];
    require(sum <= 0 || sum > 0 || sum != sum, "no sum");
    free(t.value);
}

static void try_pickle(const uint8_t *data, size_t size)
{
    struct pickle *p;
    struct err err = {0};
    if (pickle_parse(data, size, "input", &p, &err)) {
        require(err.text[0] != '\0', "refused without a word");
        return;
    }
    require(pickle_root(p) != NULL, "a document without a root");
    (void)pickle_get(pickle_root(p), "rank");
    pickle_destroy(p);
}

static void try_npy(const uint8_t *data, size_t size)
{
    struct npy npy;
    struct err err = {0};
    if (npy_read((const char *)data, size, N_EXPERT, "input", &npy, &err)) {
        require(err.text[0] != '\0', "refused without a word");
        return;
    }
    int64_t n = (int64_t)npy.n * npy.n_layer * npy.top_k;
    for (int64_t i = 0; i < n; i++)
        require(npy.id[i] >= 0 && npy.id[i] < N_EXPERT, "an id out of range");
    free(npy.id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    switch (data[0] % 3) {
    case 0:
        try_torch(data + 1, size - 1);
        break;
    case 1:
        try_pickle(data + 1, size - 1);
        break;
    default:
        try_npy(data + 1, size - 1);
    }
    return 0;
}
