/* jinja_op: the operators, with Python's meaning for each pair of types and its words where there
 * is none. Integers that leave 64 bits are a limit, not a wrong number. */
#include "model/jinja_run.h"
#include "model/jinja_text.h"

#include <math.h>
#include <string.h>

static const char *const op_text[] = {
    [OP_ADD] = "+",       [OP_SUB] = "-", [OP_MUL] = "*",           [OP_DIV] = "/",
    [OP_FLOORDIV] = "//", [OP_MOD] = "%", [OP_POW] = "** or pow()", [OP_EQ] = "==",
    [OP_NE] = "!=",       [OP_LT] = "<",  [OP_LE] = "<=",           [OP_GT] = ">",
    [OP_GE] = ">=",       [OP_IN] = "in", [OP_NOTIN] = "not in"};

static struct jval unsupported(struct jrun *r, enum jop op, struct jval a, struct jval b)
{
    j_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", op_text[op], j_type_name(a),
           j_type_name(b));
    return JUNDEF;
}

static struct jval too_wide(struct jrun *r)
{
    j_limit(r, "an integer of more than 64 bits");
    return JUNDEF;
}

static struct jval raise_text(struct jrun *r, const char *text)
{
    j_fail(r, "%s", text);
    return JUNDEF;
}

/* joined: a + b for texts. The left one grows in place where it is the newest piece of memory, as
 * it is when a template adds to a text piece by piece. */
static struct jval joined(struct jrun *r, struct jval a, struct jval b)
{
    if (!b.n || !a.n)
        return b.n ? b : a;
    if (a.n > r->bytes_max || b.n > r->bytes_max - a.n) {
        j_limit(r, "a string of more than %zu bytes", r->bytes_max);
        return JUNDEF;
    }
    bool inside = b.s >= a.s && b.s < a.s + a.n;
    if (!inside && jmem_extend(&r->mem, a.s, a.n, a.n + b.n)) {
        if (!j_step(r, b.n))
            return JUNDEF;
        memcpy((char *)(uintptr_t)a.s + a.n, b.s, b.n);
        return JSTR(a.s, a.n + b.n);
    }
    char *p = j_step(r, a.n + b.n) ? j_alloc(r, a.n + b.n, 1) : NULL;
    if (!p)
        return JUNDEF;
    memcpy(p, a.s, a.n);
    memcpy(p + a.n, b.s, b.n);
    return JSTR(p, a.n + b.n);
}

static struct jval escaped(struct jrun *r, struct jval v)
{
    return v.flag ? v : j_escape(r, v);
}

static struct jval add_str(struct jrun *r, struct jval a, struct jval b)
{
    if (a.type == J_STR && b.type == J_STR) {
        bool markup = a.flag || b.flag;
        struct jval sum = markup ? joined(r, escaped(r, a), escaped(r, b)) : joined(r, a, b);
        sum.flag = markup;
        return sum;
    }
    if (a.type != J_STR)
        return unsupported(r, OP_ADD, a, b);
    j_fail(r, "can only concatenate str (not \"%s\") to str", j_type_name(b));
    return JUNDEF;
}

static struct jval add_list(struct jrun *r, struct jval a, struct jval b)
{
    if (a.type != b.type) {
        if (a.type != J_LIST && a.type != J_TUPLE)
            return unsupported(r, OP_ADD, a, b);
        j_fail(r, "can only concatenate %s (not \"%s\") to %s", j_type_name(a), j_type_name(b),
               j_type_name(a));
        return JUNDEF;
    }
    size_t n = a.list->n + b.list->n;
    struct jlist *l = j_step(r, n * sizeof *l->v) ? jlist_new(r, n) : NULL;
    for (size_t i = 0; l && i < a.list->n; i++)
        l->v[l->n++] = a.list->v[i];
    for (size_t i = 0; l && i < b.list->n; i++)
        l->v[l->n++] = b.list->v[i];
    return l ? (struct jval){.type = a.type, .list = l} : JUNDEF;
}

static struct jval repeat_str(struct jrun *r, struct jval s, int64_t times)
{
    size_t n;
    if (times <= 0 || !s.n)
        return JLIT("");
    if (__builtin_mul_overflow(s.n, (size_t)times, &n) || n > r->bytes_max) {
        j_limit(r, "a string of more than %zu bytes", r->bytes_max);
        return JUNDEF;
    }
    char *p = j_step(r, n) ? j_alloc(r, n, 1) : NULL;
    for (size_t at = 0; p && at < n; at += s.n)
        memcpy(p + at, s.s, s.n);
    return p ? (struct jval){.type = J_STR, .flag = s.flag, .s = p, .n = n} : JUNDEF;
}

static struct jval repeat_list(struct jrun *r, struct jval v, int64_t times)
{
    size_t n;
    times = times > 0 ? times : 0;
    if (__builtin_mul_overflow(v.list->n, (size_t)times, &n) ||
        n > r->bytes_max / sizeof *v.list->v) {
        j_limit(r, "a list of more than %zu items", r->bytes_max / sizeof *v.list->v);
        return JUNDEF;
    }
    struct jlist *l = j_step(r, n * sizeof *l->v) ? jlist_new(r, n) : NULL;
    for (size_t i = 0; l && i < n; i++)
        l->v[l->n++] = v.list->v[i % v.list->n];
    return l ? (struct jval){.type = v.type, .list = l} : JUNDEF;
}

static struct jval mul_sequence(struct jrun *r, struct jval a, struct jval b)
{
    struct jval seq = j_is_int(a) ? b : a, times = j_is_int(a) ? a : b;
    bool is_seq = seq.type == J_STR || seq.type == J_LIST || seq.type == J_TUPLE;
    if (!is_seq)
        return unsupported(r, OP_MUL, a, b);
    if (!j_is_int(times)) {
        struct jval other = a.type == seq.type ? b : a;
        j_fail(r, "can't multiply sequence by non-int of type '%s'", j_type_name(other));
        return JUNDEF;
    }
    return seq.type == J_STR ? repeat_str(r, seq, times.i) : repeat_list(r, seq, times.i);
}

static struct jval int_pow(struct jrun *r, int64_t base, int64_t exponent)
{
    if (exponent < 0)
        return base == 0 ? raise_text(r, "0.0 cannot be raised to a negative power")
                         : JFLOAT(pow((double)base, (double)exponent));
    int64_t result = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
            return too_wide(r);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base))
            return too_wide(r);
    }
    return JINT(result);
}

/* Python rounds the quotient down and gives the remainder the divisor's sign. */
static struct jval int_divide(struct jrun *r, enum jop op, int64_t a, int64_t b)
{
    if (b == 0)
        return raise_text(r, op == OP_DIV   ? "division by zero"
                             : op == OP_MOD ? "integer modulo by zero"
                                            : "integer division or modulo by zero");
    if (op == OP_DIV)
        return JFLOAT((double)((long double)a / (long double)b));
    if (a == INT64_MIN && b == -1)
        return op == OP_MOD ? JINT(0) : too_wide(r);
    int64_t q = a / b, m = a % b;
    if (m != 0 && (m < 0) != (b < 0)) {
        q--;
        m += b;
    }
    return JINT(op == OP_MOD ? m : q);
}

static struct jval int_op(struct jrun *r, enum jop op, int64_t a, int64_t b)
{
    int64_t c;
    switch (op) {
    case OP_ADD:
        return __builtin_add_overflow(a, b, &c) ? too_wide(r) : JINT(c);
    case OP_SUB:
        return __builtin_sub_overflow(a, b, &c) ? too_wide(r) : JINT(c);
    case OP_MUL:
        return __builtin_mul_overflow(a, b, &c) ? too_wide(r) : JINT(c);
    case OP_POW:
        return int_pow(r, a, b);
    default:
        return int_divide(r, op, a, b);
    }
}

static struct jval float_divide(struct jrun *r, enum jop op, double a, double b)
{
    if (b == 0)
        return raise_text(r, op == OP_DIV   ? "float division by zero"
                             : op == OP_MOD ? "float modulo"
                                            : "float floor division by zero");
    if (op == OP_DIV)
        return JFLOAT(a / b);
    double m = fmod(a, b);
    double q = (a - m) / b;
    if (m != 0 && (m < 0) != (b < 0)) {
        m += b;
        q -= 1;
    } else if (m == 0) {
        m = copysign(0.0, b);
    }
    if (op == OP_MOD)
        return JFLOAT(m);
    double floored = q != 0 ? floor(q) : copysign(0.0, a / b);
    return JFLOAT(q - floored > 0.5 ? floored + 1 : floored);
}

static struct jval float_op(struct jrun *r, enum jop op, double a, double b)
{
    switch (op) {
    case OP_ADD:
        return JFLOAT(a + b);
    case OP_SUB:
        return JFLOAT(a - b);
    case OP_MUL:
        return JFLOAT(a * b);
    case OP_POW:
        if (a == 0 && b < 0)
            return raise_text(r, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b))
            return raise_text(r, "a complex number is not supported");
        if (isinf(pow(a, b)) && !isinf(a) && !isinf(b))
            return raise_text(r, "(34, 'Numerical result out of range')");
        return JFLOAT(pow(a, b));
    default:
        return float_divide(r, op, a, b);
    }
}

static bool is_sequence(struct jval v)
{
    return v.type == J_STR || v.type == J_LIST || v.type == J_TUPLE;
}

struct jval j_binary(struct jrun *r, enum jop op, struct jval a, struct jval b)
{
    if (r->rc)
        return JUNDEF;
    if (op == OP_MOD && a.type == J_STR)
        return j_percent(r, a, b);
    if (a.type == J_UNDEF || b.type == J_UNDEF) {
        j_undef_raise(r, a.type == J_UNDEF ? a : b);
        return JUNDEF;
    }
    if (j_is_int(a) && j_is_int(b))
        return int_op(r, op, a.i, b.i);
    if (j_is_number(a) && j_is_number(b))
        return float_op(r, op, a.type == J_FLOAT ? a.f : (double)a.i,
                        b.type == J_FLOAT ? b.f : (double)b.i);
    if (op == OP_ADD && (a.type == J_STR || (b.type == J_STR && b.flag)))
        return add_str(r, a, b);
    if (op == OP_ADD && is_sequence(a))
        return add_list(r, a, b);
    if (op == OP_MUL && (is_sequence(a) || is_sequence(b)))
        return mul_sequence(r, a, b);
    return unsupported(r, op, a, b);
}

bool j_compare_op(struct jrun *r, enum jop op, struct jval a, struct jval b)
{
    switch (op) {
    case OP_EQ:
        return j_equal(r, a, b);
    case OP_NE:
        return !j_equal(r, a, b);
    case OP_IN:
        return j_contains(r, b, a);
    case OP_NOTIN:
        return !j_contains(r, b, a);
    default:
        break;
    }
    int c = j_compare(r, a, b, op_text[op]);
    if (c == 2)
        return false;
    return op == OP_LT ? c < 0 : op == OP_LE ? c <= 0 : op == OP_GT ? c > 0 : c >= 0;
}

static struct jval bad_unary(struct jrun *r, const char *op, struct jval v)
{
    if (v.type == J_UNDEF)
        j_undef_raise(r, v);
    else
        j_fail(r, "bad operand type for unary %s: '%s'", op, j_type_name(v));
    return JUNDEF;
}

struct jval j_neg(struct jrun *r, struct jval v)
{
    if (v.type == J_FLOAT)
        return JFLOAT(-v.f);
    if (!j_is_int(v))
        return bad_unary(r, "-", v);
    return v.i == INT64_MIN ? too_wide(r) : JINT(-v.i);
}

struct jval j_pos(struct jrun *r, struct jval v)
{
    if (v.type == J_FLOAT)
        return v;
    return j_is_int(v) ? JINT(v.i) : bad_unary(r, "+", v);
}

struct jval j_concat(struct jrun *r, struct jval a, struct jval b)
{
    return joined(r, j_to_str(r, a), j_to_str(r, b));
}
