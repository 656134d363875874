/* limits: every bound on something that comes from a file, a socket or a user, with its reason.
 * A reader checks against these before it allocates. */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

/* The largest published models have 94 layers, 896 experts, top-16, hidden 8192. */
#define LIMIT_LAYERS  512
#define LIMIT_EXPERTS 4096
#define LIMIT_TOP_K   64
#define LIMIT_D_MODEL 65536
#define LIMIT_D_FF    1048576
#define LIMIT_VOCAB   4194304
#define LIMIT_HEADS   4096
#define LIMIT_D_HEAD  1024
#define LIMIT_CONTEXT 16777216
#define LIMIT_DOMAINS 1024
#define LIMIT_WORKERS 16384

/* safetensors: the reference implementation refuses headers above 100 MB. */
#define LIMIT_ST_HEADER_BYTES 100000000
#define LIMIT_ST_TENSORS      1000000
#define LIMIT_ST_DIMS         8
#define LIMIT_SHARDS          4096
#define LIMIT_JSON_BYTES      (64 * 1024 * 1024)

/* The wire. Rows a request: a micro-batch never has more. A header holds ids only, 4 bytes each. */
#define LIMIT_ROWS          8192
#define LIMIT_HEADER_BYTES  (1024 * 1024)
#define LIMIT_FRAMES        6
#define LIMIT_PAYLOAD_BYTES (1024L * 1024 * 1024)
#define LIMIT_NAME_BYTES    256
/* A piece of a tensor that a worker gives away: small beside a batch, so that batches go on. */
#define LIMIT_CHUNK_BYTES (1024 * 1024)

#endif
