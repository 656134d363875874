/* cost: how long each piece of work takes on given hardware, as curves over rows or bytes. Curves
 * come from `sigmoe calibrate` (measured with the kernels and the worker's code) or from a
 * roofline: the larger of bytes / bandwidth and FLOP / peak. The simulator and the advice read
 * nothing else about a machine. Times are nanoseconds of one layer unless said otherwise. */
#ifndef TOOLS_SIM_COST_H
#define TOOLS_SIM_COST_H

#include "base/err.h"
#include "model/desc.h"
#include "model/weights.h"

#include <stdint.h>

#define COST_POINTS 24

/* Piecewise linear through (x, y), x ascending. Left of the first point: its value. Right of the
 * last: the line through the last two. felt: the part of y that stretches where others slow the
 * CPU (tools/pace.h): at a pace p it takes felt / p. Products feel all of it and more, what waits
 * for memory a fifth. */
struct cost_curve {
    int n;
    double x[COST_POINTS], y[COST_POINTS], felt[COST_POINTS];
};

double cost_at(const struct cost_curve *curve, double x);
/* cost_curve_add: points in ascending order of x; ERR_LIMIT when they are not or are too many. All
 * of y is felt, or as much as said. */
int cost_curve_add(struct cost_curve *curve, double x, double y);
int cost_curve_add_felt(struct cost_curve *curve, double x, double y, double felt);

/* Work of one thread: ns on a CPU that nobody slows; of it, what is felt, and what reads memory. */
struct work {
    double ns, felt_ns, memory_ns;
};
struct work cost_work(const struct cost_curve *curve, double x);
struct work work_plus(struct work a, struct work b);
struct work work_times(struct work a, double k);

/* What a roofline needs to know of a machine. */
struct hardware {
    double flop_s, bytes_s;    /* matrix products; memory */
    double overhead_ns;        /* of one product (threads started, kernel launched) */
    double link_s, latency_ns; /* link: bytes a second one way; one way of an empty message */
    double message_ns;         /* CPU time of the coordinator for a message, each way */
};

/* CPU time of a thread that speaks HTTP. */
struct front_cost {
    double request_ns, token_ns;
};

/* How evenly a host's CPUs work: the pace of each in consecutive bins of time, 1 where nobody slows
 * it (tools/pace.h). */
#define COST_PACE_NS   (10 * INT64_C(1000000)) /* a bin of a calibration */
#define COST_PACE_CPUS 4
#define COST_PACE_BINS 2000
struct cost_pace {
    int n_cpu, n_bin; /* 0: even */
    int64_t bin_ns;
    float bin[COST_PACE_CPUS][COST_PACE_BINS];
};
/* cost_pace_mean: how much more it takes than undisturbed on the average of time: 1 / p. */
double cost_pace_mean(const struct cost_pace *pace);

struct cost_model {
    /* The coordinator, rows -> ns. */
    struct cost_curve attn;    /* norm, q k v, output projection */
    double span_ns;            /* attention, for each sequence in the batch */
    struct cost_curve context; /* rows of one span -> ns for a row and position of its context */
    struct cost_curve decode;  /* position -> ns of a sequence that gives one row there, besides
                                  attn; no points: as span_ns and context say */
    struct cost_curve gate;    /* norm and gate */
    struct cost_curve dense;   /* FFN of a dense layer */
    struct cost_curve shared;  /* shared expert; no points: the model has none */
    struct cost_curve combine; /* sum of the slots */
    struct cost_curve head;    /* LM head and draw: rows that need logits -> ns a step */
    /* A worker of speed 1. */
    struct cost_curve expert; /* rows -> ns of one expert */
    double expert_call_ns;    /* a batch, whatever it holds */
    /* The wire. */
    struct cost_curve gather;  /* bytes -> ns: the coordinator builds and sends one message */
    struct cost_curve one_way; /* bytes -> ns from send to the peer's hands */
    double receive_ns;         /* the coordinator takes one reply */
    /* Where both ends are on hosts whose CPUs they share (sim_host.c). */
    struct cost_curve hop;  /* bytes -> ns of the CPU: a process's messages are moved by a thread */
    double wake_ns;         /* until a thread runs on an idle CPU */
    struct cost_curve send; /* bytes -> ns: the coordinator hands a message over, once built */
    struct cost_curve take; /* and takes a reply */
    struct cost_curve answer; /* a worker takes and answers a message, besides computing; bytes:
                                 the mean of both ways */
    struct cost_curve memory; /* threads that read memory -> bytes a second of all of them */
    struct front_cost server, client;
    struct cost_pace pace;
    double piece_ns;   /* of the pace's piece where nobody slows a CPU; 0: not measured */
    double other_feel; /* the part that is felt of what is no product: messages, HTTP */
    double link_s;     /* bytes a second through the coordinator's port */
    double wire_bytes; /* bytes of one value of a row */
    struct hardware coordinator, worker;
    char source[256]; /* "roofline", or the calibration's file and machine */
};

/* cost_roofline fills curves for the shape. precision: bytes of weights, cache and wire. */
void cost_roofline(struct cost_model *cost, const struct model_desc *desc, enum precision precision,
                   const struct hardware *coordinator, const struct hardware *worker);
/* Hardware that people name: "cpu-2core", "h100", ...; NULL when unknown. hardware_names lists
 * them. */
const struct hardware *hardware_find(const char *name);
const char *hardware_names(void);

/* Bytes and FLOP of the parts of a layer, from the description. */
double cost_expert_bytes(const struct model_desc *desc, enum precision precision);
double cost_expert_flop(const struct model_desc *desc);                           /* of one row */
double cost_dense_bytes(const struct model_desc *desc, enum precision precision); /* one layer */

/* A calibration file: JSON (docs/LOADTEST.md). cost_load takes the curves when the file was
 * measured with this very shape and precision, else a roofline over the hardware that it found, and
 * says which in cost->source. Curves are of one kind of activations (model/weights.h); wanted: what
 * will serve ("int8", "bf16"), or NULL. ERR_USAGE where curves are of the other one: products of
 * integers take other times. Weights that are floats have only one kind, and it is not looked at.
 */
struct calibration {
    struct cost_model cost;
    char host[128], isa[32], model[128], transport[16];
    char activations[16]; /* "": the file is of before it was recorded */
    int cpus, threads, worker_threads;
};
int cost_load(const char *path, const struct model_desc *desc, enum precision precision,
              const char *wanted, struct calibration *out, struct err *err);
/* cost_pace_load: a host's pace over a time, of sigmoe loadtest pace, against a calibration's
 * piece_ns. */
int cost_pace_load(const char *path, double piece_ns, struct cost_pace *out, struct err *err);
int cost_pace_save(const char *path, const struct cost_pace *ns, struct err *err);
int cost_save(const char *path, const struct model_desc *desc, enum precision precision,
              const struct calibration *c, struct err *err);

#endif
