/* gpu_cuda: see gpu.h. A batch is one copy there, the kernels, and its results back:
 *
 *     pinned:  [rows x][row of each assignment][experts' pointers][tiles up][tiles down]  -> device
 *     device:  x -> ints -> up kernel -> h -> ints -> down kernel -> y                    -> pinned
 *
 * Pinned memory is what the device reads by itself; copies through it run at the bus's speed, and
 * the team fills and empties it. The results of many rows come in pieces: one is computed, one
 * travels and one is taken out of pinned memory at the same time. Slabs go by a stream of their
 * own, so that a load does not wait for batches nor they for it. */
#include "worker/gpu.h"

#include "base/arena.h"
#include "base/report.h"
#include "base/team.h"
#include "kernels/cuda/ffn.h"
#include "worker/gpu_check.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kernels copy to shared memory while they compute: Ampere (compute capability 8.0). */
#define CAPABILITY_MIN 8
#define COPY_CHUNK     16
#define PIECE_ALIGN    ((size_t)256)
/* Results of so many rows are a piece. */
#define PIECES_MOST 8
#define PIECE_ROWS  1024
/* Left free for batches when slabs are counted. */
#define SPARE_BYTES ((uint64_t)512 << 20)

/* Memory that grows and stays. */
struct room {
    void *at;
    size_t bytes;
    int pinned; /* of the host */
};

struct gpu {
    int ordinal;
    char name[320];
    cudaStream_t stream, back, slabs; /* kernels; results; experts */
    cudaEvent_t begun, ended;         /* a batch's kernels */
    cudaEvent_t computed[PIECES_MOST], arrived[PIECES_MOST];
    struct expert_home home;
    struct room in_host, out_host, in, x_ints, h, h_ints, y;
};

static int failed(cudaError_t rc, const struct gpu *g, const char *what, struct err *err)
{
    if (rc == cudaSuccess)
        return 0;
    int code = rc == cudaErrorMemoryAllocation ? ERR_NOMEM : ERR_IO;
    (void)cudaGetLastError(); /* or the next call is told again */
    return err_set(err, code, "cuda:%d: %s: %s", g->ordinal, what, cudaGetErrorString(rc));
}

/* ---- slabs ---- */

static void *slab_take(void *user, const void *data, size_t bytes, struct err *err)
{
    struct gpu *g = user;
    void *at = NULL;
    if (failed(cudaSetDevice(g->ordinal), g, "cannot be used", err) ||
        failed(cudaMalloc(&at, bytes), g, "no memory for an expert; hold fewer with --experts",
               err))
        return NULL;
    cudaError_t rc = cudaMemcpyAsync(at, data, bytes, cudaMemcpyHostToDevice, g->slabs);
    rc = rc ? rc : cudaStreamSynchronize(g->slabs);
    if (failed(rc, g, "cannot copy an expert there", err)) {
        cudaFree(at);
        return NULL;
    }
    return at;
}

static void slab_give(void *user, void *at, size_t bytes)
{
    struct gpu *g = user;
    (void)bytes;
    cudaSetDevice(g->ordinal);
    cudaFree(at);
}

static uint64_t slabs_available(void *user)
{
    return gpu_available(user);
}

const struct expert_home *gpu_home(struct gpu *g)
{
    return &g->home;
}

uint64_t gpu_available(struct gpu *g)
{
    size_t has = 0, all = 0;
    cudaSetDevice(g->ordinal);
    if (cudaMemGetInfo(&has, &all) != cudaSuccess)
        return 0;
    return has > SPARE_BYTES ? has - SPARE_BYTES : 1;
}

/* ---- batches ---- */

static int room_reserve(struct gpu *g, struct room *r, size_t bytes, struct err *err)
{
    if (bytes <= r->bytes)
        return 0;
    size_t grown = r->bytes + r->bytes / 2;
    grown = grown < bytes ? bytes : grown;
    void *at = NULL;
    cudaError_t rc = r->pinned ? cudaMallocHost(&at, grown) : cudaMalloc(&at, grown);
    if (failed(rc, g, "no memory for a batch", err))
        return ERR_NOMEM;
    if (r->pinned)
        cudaFreeHost(r->at);
    else
        cudaFree(r->at);
    r->at = at;
    r->bytes = grown;
    return 0;
}

static void room_free(struct room *r)
{
    if (r->pinned)
        cudaFreeHost(r->at);
    else
        cudaFree(r->at);
}

struct copy {
    const unsigned char *from;
    unsigned char *to;
    size_t bytes, ld_from, ld_to; /* of a row */
};

static void copy_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct copy *c = arg;
    for (int i = begin; i < end; i++)
        memcpy(c->to + (size_t)i * c->ld_to, c->from + (size_t)i * c->ld_from, c->bytes);
}

/* Pieces of the one copy there: offsets into `in`. */
struct pieces {
    size_t x, row, expert, tile[2], all;
};

static size_t piece(size_t *used, size_t bytes)
{
    size_t at = *used;
    *used += (bytes + PIECE_ALIGN - 1) / PIECE_ALIGN * PIECE_ALIGN;
    return at;
}

static struct pieces pieces_lay(const struct cuda_ffn *c, int n_seg, size_t row_bytes)
{
    struct pieces p = {0};
    p.x = piece(&p.all, (size_t)c->n_row * row_bytes);
    p.row = piece(&p.all, (size_t)c->n_assign * sizeof(int32_t));
    p.expert = piece(&p.all, (size_t)n_seg * sizeof(struct cuda_expert));
    for (int i = 0; i < 2; i++)
        p.tile[i] = piece(&p.all, (size_t)c->n_tile[i] * sizeof(struct cuda_tile));
    return p;
}

static int reserve(struct gpu *g, const struct cuda_ffn *c, size_t in_bytes, struct err *err)
{
    size_t d = (size_t)k_padded(c->d_model) * dtype_bytes(row_dtype(&c->like->up));
    size_t h = (size_t)k_padded(c->d_ff) * dtype_bytes(row_dtype(&c->like->up));
    size_t y = (size_t)c->d_model * dtype_bytes(c->y_dtype), n = (size_t)c->n_assign;
    int rc = room_reserve(g, &g->in_host, in_bytes, err);
    rc = rc ? rc : room_reserve(g, &g->in, in_bytes, err);
    if (!rc && c->like->up.int_rows)
        rc = room_reserve(g, &g->x_ints, (size_t)c->n_row * d, err);
    rc = rc ? rc : room_reserve(g, &g->h, n * h, err);
    if (!rc && c->like->down.int_rows)
        rc = room_reserve(g, &g->h_ints, n * h, err);
    rc = rc ? rc : room_reserve(g, &g->y, n * y, err);
    return rc ? rc : room_reserve(g, &g->out_host, n * y, err);
}

/* fill writes the pieces and says where on the device they will be. */
static void fill(struct gpu *g, const struct ffn *f, const struct pieces *p, struct cuda_ffn *c,
                 struct team *team)
{
    unsigned char *host = g->in_host.at, *there = g->in.at;
    size_t row_bytes = f->ldx * dtype_bytes(row_dtype(&c->like->up));
    struct copy rows = {f->x, host + p->x, row_bytes, row_bytes, row_bytes};
    team_run(team, copy_rows, &rows, c->n_row, COPY_CHUNK);
    int32_t *row = (int32_t *)(void *)(host + p->row);
    for (int i = 0; i < c->n_assign; i++)
        row[i] = f->row ? f->row[i] : i;
    struct cuda_expert *expert = (struct cuda_expert *)(void *)(host + p->expert);
    for (int i = 0; i < f->n_seg; i++) {
        const struct ffn_weights *w = f->seg[i].w;
        expert[i] = (struct cuda_expert){w->gate.data, w->up.data, w->down.data,
                                         w->gate_bias, w->up_bias, w->down_bias};
    }
    for (int i = 0; i < 2; i++) {
        void *tile = host + p->tile[i];
        cuda_tiles(f->seg, f->n_seg, c->tile_rows[i], tile);
        c->tile[i] = (const struct cuda_tile *)(void *)(there + p->tile[i]);
    }
    c->x = there + p->x;
    c->row = (const int32_t *)(void *)(there + p->row);
    c->expert = (const struct cuda_expert *)(void *)(there + p->expert);
    c->x_ints = g->x_ints.at;
    c->h = g->h.at;
    c->h_ints = g->h_ints.at;
    c->y = g->y.at;
}

/* A piece of the results: tiles [first, last) of stage down, rows [begin, end). */
struct part {
    int first, last, begin, end;
};

/* parts_cut: whole tiles, at least PIECE_ROWS rows but for the last. Returns how many. */
static int parts_cut(const struct cuda_tile *tile, int n_tile, int n_assign,
                     struct part part[PIECES_MOST])
{
    int least = n_assign / PIECES_MOST + 1, n = 0;
    least = least < PIECE_ROWS ? PIECE_ROWS : least;
    part[0] = (struct part){0};
    for (int i = 0; i < n_tile; i++) {
        part[n].last = i + 1;
        part[n].end = tile[i].begin + tile[i].n;
        if (part[n].end - part[n].begin >= least && i + 1 < n_tile) {
            part[n + 1] = (struct part){i + 1, i + 1, part[n].end, part[n].end};
            n++;
        }
    }
    return n + 1;
}

/* launch puts everything into the streams. */
static cudaError_t launch(struct gpu *g, const struct cuda_ffn *c, size_t in_bytes, size_t y_row,
                          const struct part *part, int n_part)
{
    cudaError_t rc =
        cudaMemcpyAsync(g->in.at, g->in_host.at, in_bytes, cudaMemcpyHostToDevice, g->stream);
    rc = rc ? rc : cudaEventRecord(g->begun, g->stream);
    rc = rc ? rc : (cudaError_t)cuda_ffn_up(c, g->stream);
    for (int i = 0; i < n_part && rc == cudaSuccess; i++) {
        unsigned char *to = g->out_host.at, *from = g->y.at;
        size_t at = (size_t)part[i].begin * y_row;
        size_t bytes = (size_t)(part[i].end - part[i].begin) * y_row;
        cudaStream_t back = n_part == 1 ? g->stream : g->back;
        rc = (cudaError_t)cuda_ffn_down(c, part[i].first, part[i].last, g->stream);
        rc = rc ? rc : cudaEventRecord(g->computed[i], g->stream);
        if (i + 1 == n_part)
            rc = rc ? rc : cudaEventRecord(g->ended, g->stream);
        if (back != g->stream)
            rc = rc ? rc : cudaStreamWaitEvent(back, g->computed[i], 0);
        rc = rc ? rc : cudaMemcpyAsync(to + at, from + at, bytes, cudaMemcpyDeviceToHost, back);
        rc = rc ? rc : cudaEventRecord(g->arrived[i], back);
    }
    return rc;
}

int gpu_ffn(struct gpu *g, const struct ffn *f, int n_row, struct team *team, struct err *err)
{
    if (f->n_seg == 0)
        return 0;
    int most = 0, n_assign = f->seg[f->n_seg - 1].end;
    for (int i = 0; i < f->n_seg; i++) {
        int n = f->seg[i].end - f->seg[i].begin;
        most = n > most ? n : most;
    }
    const struct ffn_weights *like = f->seg[0].w;
    struct cuda_ffn c = {.act = f->act,
                         .act_alpha = f->act_alpha,
                         .act_limit = f->act_limit,
                         .d_model = f->d_model,
                         .d_ff = f->d_ff,
                         .like = like,
                         .n_row = n_row,
                         .n_assign = n_assign,
                         .y_dtype = f->y_dtype};
    for (int i = 0; i < 2; i++) {
        c.tile_rows[i] = cuda_tile_rows(i ? &like->down : &like->up, most);
        c.n_tile[i] = cuda_tiles(f->seg, f->n_seg, c.tile_rows[i], NULL);
    }
    struct pieces p = pieces_lay(&c, f->n_seg, f->ldx * dtype_bytes(row_dtype(&like->up)));
    if (failed(cudaSetDevice(g->ordinal), g, "cannot be used", err))
        return ERR_IO;
    int rc = reserve(g, &c, p.all, err);
    if (rc)
        return rc;
    fill(g, f, &p, &c, team);
    struct part part[PIECES_MOST];
    const unsigned char *host = g->in_host.at;
    int n_part = parts_cut((const struct cuda_tile *)(const void *)(host + p.tile[1]), c.n_tile[1],
                           n_assign, part);
    size_t y_row = (size_t)f->d_model * dtype_bytes(f->y_dtype);
    size_t ldy = f->ldy * dtype_bytes(f->y_dtype);
    cudaError_t cuda = launch(g, &c, p.all, y_row, part, n_part);
    for (int i = 0; i < n_part && cuda == cudaSuccess; i++) {
        cuda = cudaEventSynchronize(g->arrived[i]);
        size_t begin = (size_t)part[i].begin;
        struct copy out = {(unsigned char *)g->out_host.at + begin * y_row,
                           (unsigned char *)f->y + begin * ldy, y_row, y_row, ldy};
        if (cuda == cudaSuccess)
            team_run(team, copy_rows, &out, part[i].end - part[i].begin, COPY_CHUNK);
    }
    return failed(cuda, g, "a batch failed", err);
}

double gpu_kernels_ns(struct gpu *g)
{
    float ms = 0.0f;
    return cudaEventElapsedTime(&ms, g->begun, g->ended) == cudaSuccess ? (double)ms * 1e6 : 0.0;
}

/* ---- life ---- */

static int device_take(struct gpu *g, struct err *err)
{
    int n = 0;
    cudaError_t rc = cudaGetDeviceCount(&n);
    if (rc != cudaSuccess || n == 0) {
        (void)cudaGetLastError();
        return err_set(err, ERR_USAGE, "--device cuda:%d: no CUDA device can be used here (%s)",
                       g->ordinal, rc ? cudaGetErrorString(rc) : "there is none");
    }
    if (g->ordinal >= n)
        return err_set(err, ERR_USAGE, "--device cuda:%d: this machine has cuda:0 to cuda:%d",
                       g->ordinal, n - 1);
    struct cudaDeviceProp prop;
    rc = cudaGetDeviceProperties(&prop, g->ordinal);
    if (failed(rc, g, "cannot be asked what it is", err))
        return ERR_IO;
    if (prop.major < CAPABILITY_MIN)
        return err_set(err, ERR_USAGE,
                       "--device cuda:%d: %s has compute capability %d.%d; 8.0 (Ampere) is needed",
                       g->ordinal, prop.name, prop.major, prop.minor);
    char bytes[32];
    snprintf(g->name, sizeof(g->name), "cuda:%d %s (%s)", g->ordinal, prop.name,
             human_bytes((double)prop.totalGlobalMem, bytes, sizeof(bytes)));
    /* A thread that waits for a batch has nothing else to do, and to be woken takes longer. */
    (void)cudaSetDeviceFlags(cudaDeviceScheduleSpin);
    rc = cudaSetDevice(g->ordinal);
    rc = rc ? rc : cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking);
    rc = rc ? rc : cudaStreamCreateWithFlags(&g->back, cudaStreamNonBlocking);
    rc = rc ? rc : cudaStreamCreateWithFlags(&g->slabs, cudaStreamNonBlocking);
    rc = rc ? rc : cudaEventCreate(&g->begun);
    rc = rc ? rc : cudaEventCreate(&g->ended);
    for (int i = 0; i < PIECES_MOST; i++) {
        rc = rc ? rc : cudaEventCreateWithFlags(&g->computed[i], cudaEventDisableTiming);
        rc = rc ? rc : cudaEventCreateWithFlags(&g->arrived[i], cudaEventDisableTiming);
    }
    return failed(rc, g, "cannot be used", err);
}

int gpu_open(int ordinal, struct gpu **out, struct err *err)
{
    struct gpu *g = calloc(1, sizeof(*g));
    if (!g)
        return err_set(err, ERR_NOMEM, "no memory for a device");
    g->ordinal = ordinal;
    g->home = (struct expert_home){g, slab_take, slab_give, slabs_available};
    g->in_host.pinned = g->out_host.pinned = 1;
    int rc = device_take(g, err);
    rc = rc ? rc : gpu_check(g, err);
    if (rc) {
        gpu_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

static void stream_free(cudaStream_t stream)
{
    if (stream)
        cudaStreamDestroy(stream);
}

static void event_free(cudaEvent_t event)
{
    if (event)
        cudaEventDestroy(event);
}

void gpu_close(struct gpu *g)
{
    if (!g)
        return;
    cudaSetDevice(g->ordinal);
    struct room *all[] = {&g->in_host, &g->out_host, &g->in, &g->x_ints, &g->h, &g->h_ints, &g->y};
    for (int i = 0; i < (int)(sizeof(all) / sizeof(*all)); i++)
        room_free(all[i]);
    stream_free(g->stream);
    stream_free(g->back);
    stream_free(g->slabs);
    event_free(g->begun);
    event_free(g->ended);
    for (int i = 0; i < PIECES_MOST; i++) {
        event_free(g->computed[i]);
        event_free(g->arrived[i]);
    }
    (void)cudaGetLastError();
    free(g);
}

const char *gpu_name(const struct gpu *g)
{
    return g->name;
}
