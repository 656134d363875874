/* jinja_value: what a template computes with: Python's values as far as templates meet them. Values
 * are small and copied; what they point to lives in the rendering's memory (or in the template, or
 * in the caller's JSON, both of which outlive the rendering) and never changes once a template can
 * see it, save the attributes of a namespace and the position of an iterator. All text is valid
 * UTF-8; indices and lengths that templates see count code points. */
#ifndef MODEL_JINJA_VALUE_H
#define MODEL_JINJA_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jrun;

enum jtype {
    J_UNDEF, /* Jinja2's default Undefined */
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_DICT,
    J_VIEW, /* d.keys(), d.values(), d.items() */
    J_RANGE,
    J_ITER, /* a generator, computed already, that can be walked once */
    J_NS,   /* namespace() */
    J_LOOP,
    J_MACRO,
    J_FUNC, /* range, dict, ... */
    J_METHOD,
    J_CYCLER,
    J_JOINER,
    J_TYPE_COUNT
};
enum jview { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };

struct jval {
    uint8_t type; /* enum jtype */
    uint8_t flag; /* J_STR: 1 is Markup; J_VIEW: enum jview */
    union {
        int64_t i; /* J_INT, J_BOOL */
        double f;
        const char *s;
        struct jlist *list; /* also J_TUPLE */
        struct jdict *dict; /* also J_VIEW, J_NS */
        struct jundef *undef;
        struct jrange *range;
        struct jiter *iter;
        struct jloop *loop;
        const struct jmacro *macro;
        const struct jfunc *func;
        struct jmethod *method;
        struct jcycler *cycler; /* also J_JOINER */
        const void *p;
    };
    size_t n; /* J_STR: bytes */
};
struct jlist {
    struct jval *v; /* [n] */
    size_t n, cap;
};
struct jpair {
    struct jval key, value;
};
struct jdict {
    struct jpair *kv; /* [n], in order of insertion */
    size_t n, cap;
};
struct jundef {
    const char *hint; /* the whole message, or NULL */
    struct jval name; /* what was looked for */
    struct jval obj;  /* where; J_UNDEF: among the variables */
    bool unsafe;      /* the sandbox forbids it */
};
struct jrange {
    int64_t start, stop, step;
    size_t n;
};
struct jiter {
    struct jlist *list;
    size_t pos;
};
struct jcycler { /* cycler: items, pos; joiner: items->v[0] is the separator, pos 1 once used */
    struct jlist *items;
    size_t pos;
};
struct jmethod {
    struct jval self;
    const struct jfunc *func;
};
/* jbuf: text being written. */
struct jbuf {
    char *p;
    size_t n, cap;
};

#define JNONE      ((struct jval){.type = J_NONE})
#define JBOOL(b)   ((struct jval){.type = J_BOOL, .i = (b) ? 1 : 0})
#define JINT(x)    ((struct jval){.type = J_INT, .i = (x)})
#define JFLOAT(x)  ((struct jval){.type = J_FLOAT, .f = (x)})
#define JSTR(p, k) ((struct jval){.type = J_STR, .s = (p), .n = (k)})
#define JLIT(lit)  JSTR((lit), sizeof(lit) - 1)
#define JUNDEF     ((struct jval){.type = J_UNDEF})
#define JLIST(l)   ((struct jval){.type = J_LIST, .list = (l)})
#define JTUPLE(l)  ((struct jval){.type = J_TUPLE, .list = (l)})
#define JDICT(d)   ((struct jval){.type = J_DICT, .dict = (d)})

static inline bool j_is_number(struct jval v)
{
    return v.type == J_BOOL || v.type == J_INT || v.type == J_FLOAT;
}
static inline bool j_is_int(struct jval v)
{
    return v.type == J_BOOL || v.type == J_INT;
}
static inline bool j_is_str(struct jval v, const char *s, size_t n)
{
    return v.type == J_STR && v.n == n && __builtin_memcmp(v.s, s, n) == 0;
}

/* Makers. On failure the rendering is marked failed (jinja_run.h) and the result is empty. */
struct jval j_str_copy(struct jrun *r, const char *s, size_t n);
struct jlist *jlist_new(struct jrun *r, size_t cap);
bool jlist_push(struct jrun *r, struct jlist *l, struct jval v);
struct jdict *jdict_new(struct jrun *r, size_t cap);
/* jdict_set replaces or appends; false with TypeError when the key cannot be hashed. jdict_find:
 * NULL when absent or unhashable; jdict_get_str does not fail. */
bool jdict_set(struct jrun *r, struct jdict *d, struct jval key, struct jval value);
struct jval *jdict_find(struct jrun *r, const struct jdict *d, struct jval key);
struct jval *jdict_find_str(struct jrun *r, const struct jdict *d, const char *s, size_t n);
bool j_hashable(struct jrun *r, struct jval v);
struct jval j_undef_name(struct jrun *r, const char *name, size_t n);
struct jval j_undef_item(struct jrun *r, struct jval obj, struct jval name);
struct jval j_undef_unsafe(struct jrun *r, struct jval obj, struct jval name);
struct jval j_undef_hint(struct jrun *r, const char *hint);
/* j_undef_raise fails the rendering with the message of an undefined value. */
void j_undef_raise(struct jrun *r, struct jval v);

/* Questions. */
const char *j_type_name(struct jval v); /* Python's type(v).__name__ */
bool j_truth(struct jval v);
/* j_len: Python's len(); false with TypeError. */
bool j_len(struct jrun *r, struct jval v, size_t *n);
bool j_equal(struct jrun *r, struct jval a, struct jval b);
/* j_compare: -1, 0, 1 for order; `op` is the operator's text for the TypeError. Not for NaN:
 * then 2. */
int j_compare(struct jrun *r, struct jval a, struct jval b, const char *op);
/* j_contains: needle in hay. */
bool j_contains(struct jrun *r, struct jval hay, struct jval needle);

/* Walking any iterable. jcursor_init: false with TypeError. jcursor_next: false at the end. */
struct jcursor {
    struct jval src;
    size_t pos;
};
bool j_iterable(struct jval v);
bool jcursor_init(struct jrun *r, struct jcursor *c, struct jval v);
bool jcursor_next(struct jrun *r, struct jcursor *c, struct jval *out);
/* j_to_list: list(v); NULL on failure. */
struct jlist *j_to_list(struct jrun *r, struct jval v);
struct jval jrange_at(const struct jrange *range, size_t i);

/* Text. */
bool jbuf_put(struct jrun *r, struct jbuf *b, const char *s, size_t n);
bool jbuf_puts(struct jrun *r, struct jbuf *b, const char *s);
bool jbuf_put_cp(struct jrun *r, struct jbuf *b, uint32_t cp);
struct jval jbuf_take(const struct jbuf *b);
/* j_write: str(v); j_repr: repr(v). */
void j_write(struct jrun *r, struct jbuf *b, struct jval v);
void j_repr(struct jrun *r, struct jbuf *b, struct jval v);
/* j_to_str: str(v) as a value; a string is itself. */
struct jval j_to_str(struct jrun *r, struct jval v);
/* j_float_text writes Python's repr of a double; out holds 32. */
void j_float_text(double f, char out[32]);

#endif
