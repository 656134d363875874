/* experts: the experts a process holds. Each is a slab among others of one reservation
 * (model/slabs.h), a file's mapping where there is a packed cache, or a device's memory (its home);
 * in any case drop gives the memory back at once, whatever else is held. The table holds atomic
 * pointers: an expert becomes visible whole. */
#include "base/arena.h"
#include "base/pages.h"
#include "model/pack_job.h"
#include "model/packed_cache.h"
#include "model/slabs.h"
#include "model/weights.h"

#include <stdatomic.h>
#include <stdlib.h>

#define ALIGN ((size_t)64)

struct slab {
    void *data;
    int mapped; /* from the packed cache */
    int away;   /* with the set's home */
};

struct expert {
    struct ffn_weights w;
    struct slab slab;
    size_t given; /* of the slab, already back */
};

struct expert_set {
    const struct model *model;
    enum precision precision;
    enum dtype dtype;
    int int_rows;      /* integer matrices meet rows of integers */
    uint64_t layout;   /* pack_layout_hash; 0 without a packed cache */
    size_t slab_bytes; /* the same for every expert */
    int beside;        /* others compute meanwhile */
    struct slabs *slabs;
    const struct expert_home *home;  /* NULL: here */
    _Atomic(struct expert *) *table; /* [n_layer, n_expert] */
    _Atomic uint64_t bytes;
    _Atomic int count, mapped;
};

/* Where a role's tensor lies in the slab and what it is; n 0 where the model has none. One walk
 * sums and places, so that they cannot disagree. */
struct part {
    enum role role;
    size_t at;
    int n, k;             /* k 0: a vector of f32 */
    struct packed matrix; /* data NULL; when k is not 0 */
};
#define N_PART 6

/* parts_lay returns the bytes of the slab, 0 when they overflow. */
static size_t parts_lay(const struct model_desc *desc, enum dtype dtype, struct part part[N_PART])
{
    static const enum role roles[N_PART] = {ROLE_EXPERT_GATE,    ROLE_EXPERT_UP,
                                            ROLE_EXPERT_DOWN,    ROLE_EXPERT_GATE_BIAS,
                                            ROLE_EXPERT_UP_BIAS, ROLE_EXPERT_DOWN_BIAS};
    size_t used = 0;
    int layer = 0;
    while (layer < desc->n_layer && !desc->layer[layer].sparse)
        layer++;
    for (int i = 0; i < N_PART; i++) {
        part[i] = (struct part){.role = roles[i], .at = used};
        if (desc_tensor_shape(desc, roles[i], layer, &part[i].n, &part[i].k) != 0)
            continue;
        size_t bytes = (size_t)part[i].n * sizeof(float);
        if (part[i].k)
            part[i].matrix = quant_packed(desc, roles[i], dtype, part[i].n, part[i].k, &bytes);
        bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
        if (bytes == 0 || add_size(used, bytes, &used))
            return 0;
    }
    return used;
}

uint64_t weights_expert_bytes(const struct model_desc *desc, enum precision precision)
{
    struct part part[N_PART];
    return parts_lay(desc, precision_dtype(precision), part);
}

int expert_set_create(const struct model *model, enum precision precision, struct expert_set **out,
                      struct err *err)
{
    const struct model_desc *desc = &model->desc;
    size_t n = (size_t)desc->n_layer * (size_t)desc->n_expert;
    if (desc->n_expert == 0)
        return err_set(err, ERR_MODEL, "%s is a dense %s model; it has no experts", model->dir,
                       desc->family);
    size_t total = (size_t)weights_expert_bytes(desc, precision);
    if (total == 0)
        return err_set(err, ERR_LIMIT, "an expert of [%d, %d] is too large to be packed",
                       desc->d_ff_expert, desc->d_model);
    struct expert_set *set = calloc(1, sizeof(*set));
    if (set) {
        set->table = calloc(n, sizeof(*set->table));
        set->slabs = slabs_create(n, total);
    }
    if (!set || !set->table || !set->slabs) {
        if (set) {
            slabs_destroy(set->slabs);
            free(set->table);
        }
        free(set);
        return err_set(err, ERR_NOMEM, "no memory for a table of %zu experts", n);
    }
    set->model = model;
    set->precision = precision;
    set->dtype = precision_dtype(precision);
    set->int_rows = model_int_rows(model, precision);
    if (model->packed_dir[0])
        set->layout = pack_layout_hash();
    set->slab_bytes = total;
    *out = set;
    return 0;
}

static _Atomic(struct expert *) *entry(const struct expert_set *set, int layer, int expert)
{
    const struct model_desc *desc = &set->model->desc;
    if (layer < 0 || layer >= desc->n_layer || expert < 0 || expert >= desc->n_expert ||
        !desc->layer[layer].sparse)
        return NULL;
    return &set->table[(size_t)layer * (size_t)desc->n_expert + (size_t)expert];
}

static void expert_hang(struct ffn_weights *w, const struct part *p, void *data)
{
    struct packed packed = p->matrix;
    packed.data = data;
    switch (p->role) {
    case ROLE_EXPERT_GATE:
        w->gate = packed;
        break;
    case ROLE_EXPERT_UP:
        w->up = packed;
        break;
    case ROLE_EXPERT_DOWN:
        w->down = packed;
        break;
    case ROLE_EXPERT_GATE_BIAS:
        w->gate_bias = data;
        break;
    case ROLE_EXPERT_UP_BIAS:
        w->up_bias = data;
        break;
    default:
        w->down_bias = data;
        break;
    }
}

/* jobs_lay: the jobs that fill the slab of an expert; returns how many. */
static int jobs_lay(const struct expert_set *set, int layer, int expert, unsigned char *slab,
                    struct pack_job job[N_PART], struct err *err)
{
    const struct model_desc *desc = &set->model->desc;
    struct part part[N_PART];
    parts_lay(desc, set->dtype, part);
    int n_job = 0, rc = 0;
    for (int i = 0; i < N_PART && rc == 0; i++) {
        const struct part *p = &part[i];
        if (p->n == 0)
            continue;
        struct pack_job *j = &job[n_job++];
        *j = (struct pack_job){.data = slab + p->at,
                               .dtype = p->k ? p->matrix.dtype : DTYPE_F32,
                               .n = p->n,
                               .k = p->k,
                               .n_row = p->n};
        rc = quant_find(set->model->ck, desc, p->role, layer, expert, &j->quant, err);
        if (rc == 0)
            rc = checkpoint_role(set->model->ck, desc, p->role, layer, expert, &j->src, err);
        else if (rc > 0)
            j->src = j->quant.packed;
        rc = rc > 0 ? 0 : rc;
    }
    return rc ? rc : n_job;
}

static void slab_free(const struct expert_set *set, const struct slab *slab)
{
    if (slab->away)
        set->home->give(set->home->user, slab->data, set->slab_bytes);
    else if (slab->mapped)
        packed_cache_unmap(slab->data, set->slab_bytes);
    else
        slabs_give(set->slabs, slab->data);
}

/* slab_pack: the slab filled from the checkpoint, and mapped from the packed cache where that takes
 * it. */
static int slab_pack(const struct expert_set *set, const struct packed_key *key, struct team *team,
                     struct progress *progress, struct slab *out, struct err *err)
{
    struct pack_job job[N_PART];
    unsigned char *slab = set->beside ? slabs_take_beside(set->slabs) : slabs_take(set->slabs);
    if (!slab)
        return err_set(err, ERR_NOMEM, "no memory for expert %d of layer %d (%zu bytes)",
                       key->expert, key->layer, set->slab_bytes);
    int n_job = jobs_lay(set, key->layer, key->expert, slab, job, err);
    int rc = n_job < 0 ? n_job : pack_jobs_run(job, n_job, set->model->ck, team, progress, err);
    if (rc) {
        slabs_give(set->slabs, slab);
        return rc;
    }
    void *map = key->layout ? packed_cache_put(key, slab) : NULL;
    if (map)
        slabs_give(set->slabs, slab);
    *out = (struct slab){map ? map : slab, map != NULL, 0};
    return 0;
}

/* slab_get: the slab from the packed cache, or packed. */
static int slab_get(const struct expert_set *set, int layer, int expert, struct team *team,
                    struct progress *progress, struct slab *out, struct err *err)
{
    struct packed_key key = {set->model, set->precision, layer, expert, 0, set->slab_bytes};
    if (set->layout) {
        struct pack_job job[N_PART];
        unsigned char *base = (unsigned char *)(uintptr_t)ALIGN; /* nothing is written */
        int n_job = jobs_lay(set, layer, expert, base, job, err);
        if (n_job < 0)
            return n_job;
        key.layout = pack_jobs_hash(job, n_job, base, set->layout);
        out->data = packed_cache_get(&key);
        out->mapped = out->data != NULL;
        for (int i = 0; out->data && progress && i < n_job; i++)
            progress_add(progress, job[i].src->bytes);
    }
    return out->data ? 0 : slab_pack(set, &key, team, progress, out, err);
}

/* slab_send: the slab to the set's home, where it has one. */
static int slab_send(const struct expert_set *set, struct slab *slab, struct err *err)
{
    if (!set->home)
        return 0;
    void *at = set->home->take(set->home->user, slab->data, set->slab_bytes, err);
    slab_free(set, slab);
    *slab = (struct slab){at, 0, 1};
    return at ? 0 : ERR_NOMEM;
}

static struct expert *expert_make(const struct expert_set *set, const struct slab *slab)
{
    struct part part[N_PART];
    struct expert *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    parts_lay(&set->model->desc, set->dtype, part);
    for (int i = 0; i < N_PART; i++) {
        part[i].matrix.int_rows = set->int_rows && quant_integers(part[i].matrix.dtype);
        if (part[i].n > 0)
            expert_hang(&e->w, &part[i], (unsigned char *)slab->data + part[i].at);
    }
    e->slab = *slab;
    return e;
}

static int expert_load(struct expert_set *set, int layer, int expert, struct team *team,
                       struct progress *progress, struct err *err)
{
    struct slab slab = {NULL, 0, 0};
    _Atomic(struct expert *) *slot = entry(set, layer, expert);
    if (!slot)
        return err_set(err, ERR_USAGE,
                       "there is no expert %d in layer %d; %s has experts 0-%d in %d of %d layers",
                       expert, layer, set->model->dir, set->model->desc.n_expert - 1,
                       desc_n_sparse(&set->model->desc), set->model->desc.n_layer);
    if (atomic_load_explicit(slot, memory_order_acquire))
        return 0;
    int rc = slab_get(set, layer, expert, team, progress, &slab, err);
    rc = rc ? rc : slab_send(set, &slab, err);
    if (rc)
        return rc;
    struct expert *e = expert_make(set, &slab);
    if (!e) {
        slab_free(set, &slab);
        return err_set(err, ERR_NOMEM, "no memory for expert %d of layer %d", expert, layer);
    }
    atomic_store_explicit(slot, e, memory_order_release);
    atomic_fetch_add(&set->bytes, set->slab_bytes);
    atomic_fetch_add(&set->count, 1);
    atomic_fetch_add(&set->mapped, slab.mapped);
    return 0;
}

void expert_set_beside(struct expert_set *set)
{
    set->beside = 1;
}

void expert_set_home(struct expert_set *set, const struct expert_home *home)
{
    set->home = home;
}

int expert_set_load(struct expert_set *set, int layer, int expert, struct err *err)
{
    return expert_load(set, layer, expert, NULL, NULL, err);
}

static int home_check(const struct expert_home *home, uint64_t bytes, struct err *err)
{
    uint64_t have = home->available(home->user);
    if (bytes <= have)
        return 0;
    char need[32], has[32];
    return err_set(err, ERR_NOMEM,
                   "the experts need %s of memory, the device has %s; hold fewer with --experts",
                   human_bytes((double)bytes, need, sizeof(need)),
                   human_bytes((double)have, has, sizeof(has)));
}

/* many_check: the ids exist and the memory could hold them, before the first is read. */
static int many_check(const struct expert_set *set, const int32_t *experts, int n, struct err *err)
{
    const struct model_desc *desc = &set->model->desc;
    for (int i = 0; i < n; i++)
        if (experts[i] < 0 || experts[i] >= desc->n_expert)
            return err_set(err, ERR_USAGE, "there is no expert %d; %s has experts 0-%d",
                           (int)experts[i], set->model->dir, desc->n_expert - 1);
    uint64_t bytes = (uint64_t)n * (uint64_t)desc_n_sparse(desc) * set->slab_bytes;
    if (set->home)
        return home_check(set->home, bytes, err);
    return memory_check(bytes, "the experts", "hold fewer with --experts", err);
}

/* source_bytes: what loading the experts will read, for the progress bar. */
static uint64_t source_bytes(const struct expert_set *set, int n)
{
    const struct model_desc *desc = &set->model->desc;
    const struct tensor *t;
    struct part part[N_PART];
    uint64_t each = 0;
    int layer = desc->n_layer - 1;
    while (layer > 0 && !desc->layer[layer].sparse)
        layer--;
    parts_lay(desc, set->dtype, part);
    for (int i = 0; i < N_PART; i++)
        if (part[i].n > 0 &&
            checkpoint_role(set->model->ck, desc, part[i].role, layer, 0, &t, NULL) == 0)
            each += t->bytes;
    return each * (uint64_t)n * (uint64_t)desc_n_sparse(desc);
}

int expert_set_load_many(struct expert_set *set, const int32_t *experts, int n, struct team *team,
                         struct err *err)
{
    const struct model_desc *desc = &set->model->desc;
    struct progress progress;
    int rc = many_check(set, experts, n, err);
    if (rc)
        return rc;
    progress_start(&progress, "experts", source_bytes(set, n));
    for (int layer = 0; layer < desc->n_layer && rc == 0; layer++)
        for (int i = 0; i < n && rc == 0 && desc->layer[layer].sparse; i++)
            rc = expert_load(set, layer, experts[i], team, &progress, err);
    progress_end(&progress);
    return rc;
}

struct expert *expert_set_detach(struct expert_set *set, int layer, int expert)
{
    _Atomic(struct expert *) *slot = entry(set, layer, expert);
    struct expert *e = slot ? atomic_exchange(slot, NULL) : NULL;
    if (e)
        atomic_fetch_sub(&set->count, 1);
    return e;
}

void expert_free(struct expert_set *set, struct expert *e)
{
    if (!e)
        return;
    slab_free(set, &e->slab);
    atomic_fetch_sub(&set->mapped, e->slab.mapped);
    free(e);
    atomic_fetch_sub(&set->bytes, set->slab_bytes);
}

int expert_free_some(struct expert_set *set, struct expert *e, size_t bytes)
{
    if (!e->slab.away && set->slab_bytes - e->given > bytes) {
        pages_give((unsigned char *)e->slab.data + e->given, bytes);
        e->given += bytes;
        return 1;
    }
    expert_free(set, e);
    return 0;
}

void expert_set_drop(struct expert_set *set, int layer, int expert)
{
    expert_free(set, expert_set_detach(set, layer, expert));
}

void expert_set_destroy(struct expert_set *set)
{
    if (!set)
        return;
    for (int layer = 0; layer < set->model->desc.n_layer; layer++)
        for (int expert = 0; expert < set->model->desc.n_expert; expert++)
            expert_set_drop(set, layer, expert);
    slabs_destroy(set->slabs);
    free(set->table);
    free(set);
}

const struct ffn_weights *expert_set_get(const struct expert_set *set, int layer, int expert)
{
    _Atomic(struct expert *) *slot = entry(set, layer, expert);
    struct expert *e = slot ? atomic_load_explicit(slot, memory_order_acquire) : NULL;
    return e ? &e->w : NULL;
}

uint64_t expert_set_bytes(const struct expert_set *set)
{
    return atomic_load(&set->bytes);
}

int expert_set_count(const struct expert_set *set)
{
    return atomic_load(&set->count);
}

int expert_set_mapped(const struct expert_set *set)
{
    return atomic_load(&set->mapped);
}
