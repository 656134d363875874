/* jinja_run: one rendering: its memory, bounds, scopes and first failure. A failure is sticky: it
 * is noted once in `rc`, every evaluation afterwards returns at once with an undefined value, and
 * loops look at `rc`; so functions return values and the first failure's words reach the caller. */
#ifndef MODEL_JINJA_RUN_H
#define MODEL_JINJA_RUN_H

#include "base/err.h"
#include "model/jinja_ast.h"
#include "model/jinja_mem.h"
#include "model/jinja_value.h"

/* C recursion: evaluation within evaluation, and lists within lists. At most about 1 KiB of stack
 * each (4 KiB under ASan), so that a thread's 8 MiB hold it. */
#define JRUN_NEST_MAX   1200
#define JVALUE_NEST_MAX 200

struct jvar {
    uint32_t id;
    struct jval v;
};
struct jscope {
    struct jscope *parent;
    struct jvar *var; /* [n] */
    uint32_t n, cap;
};
struct jrun {
    const struct jinja *t;
    struct jmem mem;
    struct err *err;
    int rc;
    long steps_left, steps_max;
    int depth, depth_max; /* macro calls */
    int nest, value_nest;
    size_t bytes_max;
    int64_t now;
    uint32_t line;    /* of what is evaluated now */
    struct jval *ctx; /* [n_name] of the template; .type J_TYPE_COUNT: not given */
    struct jscope *scope;
    struct jbuf *out;
    struct jval piped; /* what a filter without an operand applies to */
};
struct jmacro {
    const struct jnode *node; /* N_MACRO, N_CALLBLOCK: params, defaults, body */
    struct jscope *scope;     /* where it was defined */
};

struct jkw {
    struct jval name; /* J_STR */
    struct jval value;
};
/* jargs: the arguments of a call of a function, method, filter (without its operand) or test. */
struct jargs {
    struct jval *pos; /* [n_pos] */
    size_t n_pos;
    struct jkw *kw; /* [n_kw] */
    size_t n_kw;
};
typedef struct jval jfunc_fn(struct jrun *r, struct jval self, const struct jargs *args);
struct jfunc {
    const char *name;
    jfunc_fn *fn;
};

/* j_fail: what Jinja2 or Python would raise. j_limit: a bound was met. Both keep the first. */
void j_fail(struct jrun *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void j_limit(struct jrun *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* j_step charges one step, and one more for each 64 of `bulk`; false once the rendering failed. */
bool j_step(struct jrun *r, size_t bulk);
/* j_alloc: NULL fails the rendering. n * size is checked. */
void *j_alloc(struct jrun *r, size_t n, size_t size);

/* jargs_bind puts positional and keyword arguments in the order of `names` (NULL-terminated) into
 * out, which holds the defaults. `what` names the callee. false: too many, unknown, or fewer than
 * n_required. */
bool jargs_bind(struct jrun *r, const struct jargs *args, const char *what,
                const char *const *names, size_t n_required, struct jval *out);
/* Arguments that must have a type, else TypeError. */
bool j_want_str(struct jrun *r, struct jval v, const char *what);
bool j_want_int(struct jrun *r, struct jval v, int64_t *out);

/* jinja_eval.c */
struct jval j_eval(struct jrun *r, const struct jnode *n);
/* j_eval_args: of a call's node, with room for one keyword more. */
bool j_eval_args(struct jrun *r, const struct jnode *n, struct jargs *args);
struct jval j_call(struct jrun *r, struct jval f, const struct jargs *args);
struct jval j_eval_filter(struct jrun *r, const struct jnode *n, struct jval piped);
/* jinja_exec.c */
enum jflow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };
enum jflow j_exec(struct jrun *r, const struct jnode *n);
void j_assign(struct jrun *r, const struct jnode *target, struct jval v);
struct jval j_call_macro(struct jrun *r, const struct jmacro *m, const struct jargs *args);
bool jscope_set(struct jrun *r, struct jscope *s, uint32_t id, struct jval v);
/* jinja_loop.c */
struct jval jloop_attr(struct jrun *r, struct jloop *l, const char *s, size_t n, bool *found);
enum jflow j_exec_for(struct jrun *r, const struct jnode *n);
/* jinja_op.c */
struct jval j_binary(struct jrun *r, enum jop op, struct jval a, struct jval b);
bool j_compare_op(struct jrun *r, enum jop op, struct jval a, struct jval b);
struct jval j_neg(struct jrun *r, struct jval v);
struct jval j_pos(struct jrun *r, struct jval v);
/* j_concat: a ~ b. j_escape: HTML, as Markup. */
struct jval j_concat(struct jrun *r, struct jval a, struct jval b);
struct jval j_escape(struct jrun *r, struct jval v);
/* jinja_attr.c: a.b, a[b], a[b:c:d] with the rules of Jinja2's sandbox */
struct jval j_getattr(struct jrun *r, struct jval v, struct jval name);
struct jval j_getitem(struct jrun *r, struct jval v, struct jval key);
struct jval j_slice(struct jrun *r, struct jval v, const struct jval part[3]);
/* jinja_format.c: Python's % and str.format */
struct jval j_percent(struct jrun *r, struct jval format, struct jval arg);
struct jval j_format(struct jrun *r, struct jval self, const struct jargs *args);
/* jinja_json.c */
struct jval j_tojson(struct jrun *r, struct jval self, const struct jargs *args);
/* jinja_time.c */
struct jval j_strftime_now(struct jrun *r, struct jval self, const struct jargs *args);

/* The tables: NULL when there is no such name. */
const struct jfunc *j_find_filter(const char *s, size_t n);
const struct jfunc *j_find_test(const char *s, size_t n);
const struct jfunc *j_find_global(const char *s, size_t n);
const struct jfunc *j_find_in(const struct jfunc *table, const char *s, size_t n);
/* j_test_bool calls a test and gives its truth. */
bool j_test_bool(struct jrun *r, const struct jfunc *test, struct jval v, const struct jargs *args);

#endif
