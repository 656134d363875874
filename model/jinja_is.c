/* jinja_is: what stands behind `is`. */
#include "model/jinja_methods.h"
#include "model/jinja_run.h"

static const char *const no_names[] = {NULL};

static bool alone(struct jrun *r, const struct jargs *args)
{
    return jargs_bind(r, args, "this test", no_names, 0, NULL);
}

#define TYPE_TEST(fn, condition)                                                                   \
    static struct jval fn(struct jrun *r, struct jval v, const struct jargs *args)                 \
    {                                                                                              \
        return alone(r, args) ? JBOOL(condition) : JUNDEF;                                         \
    }
TYPE_TEST(is_defined, v.type != J_UNDEF)
TYPE_TEST(is_undefined, v.type == J_UNDEF)
TYPE_TEST(is_none, v.type == J_NONE)
TYPE_TEST(is_boolean, v.type == J_BOOL)
TYPE_TEST(is_true, v.type == J_BOOL && v.i)
TYPE_TEST(is_false, v.type == J_BOOL && !v.i)
TYPE_TEST(is_integer, v.type == J_INT)
TYPE_TEST(is_float, v.type == J_FLOAT)
TYPE_TEST(is_number, j_is_number(v))
TYPE_TEST(is_string, v.type == J_STR)
TYPE_TEST(is_mapping, v.type == J_DICT)
TYPE_TEST(is_escaped, v.type == J_STR && v.flag)
TYPE_TEST(is_iterable, j_iterable(v) || v.type == J_LOOP)
TYPE_TEST(is_sequence, v.type == J_UNDEF || v.type == J_STR || v.type == J_LIST ||
                           v.type == J_TUPLE || v.type == J_DICT || v.type == J_RANGE)
TYPE_TEST(is_callable, v.type == J_UNDEF || v.type == J_FUNC || v.type == J_METHOD ||
                           v.type == J_MACRO || v.type == J_JOINER || v.type == J_LOOP)

static struct jval is_upper(struct jrun *r, struct jval v, const struct jargs *args)
{
    return alone(r, args) ? jstr_is_case(r, j_to_str(r, v), CASE_UPPER) : JUNDEF;
}

static struct jval is_lower(struct jrun *r, struct jval v, const struct jargs *args)
{
    return alone(r, args) ? jstr_is_case(r, j_to_str(r, v), CASE_LOWER) : JUNDEF;
}

static struct jval remainder_is(struct jrun *r, struct jval v, struct jval divisor, int64_t want)
{
    struct jval m = j_binary(r, OP_MOD, v, divisor);
    return r->rc ? JUNDEF : JBOOL(j_equal(r, m, JINT(want)));
}

static struct jval is_odd(struct jrun *r, struct jval v, const struct jargs *args)
{
    return alone(r, args) ? remainder_is(r, v, JINT(2), 1) : JUNDEF;
}

static struct jval is_even(struct jrun *r, struct jval v, const struct jargs *args)
{
    return alone(r, args) ? remainder_is(r, v, JINT(2), 0) : JUNDEF;
}

static bool one_arg(struct jrun *r, const struct jargs *args, struct jval *other)
{
    static const char *const names[] = {"other", NULL};
    return jargs_bind(r, args, "this test", names, 1, other);
}

static struct jval is_divisible(struct jrun *r, struct jval v, const struct jargs *args)
{
    static const char *const names[] = {"num", NULL};
    struct jval by;
    return jargs_bind(r, args, "divisibleby", names, 1, &by) ? remainder_is(r, v, by, 0) : JUNDEF;
}

static struct jval is_sameas(struct jrun *r, struct jval v, const struct jargs *args)
{
    struct jval other;
    if (!one_arg(r, args, &other))
        return JUNDEF;
    if (v.type != other.type)
        return JBOOL(false);
    bool plain = v.type == J_NONE || v.type == J_BOOL || v.type == J_INT || v.type == J_STR;
    return JBOOL(plain ? j_equal(r, v, other) : v.type != J_FLOAT && v.p == other.p);
}

#define COMPARE_TEST(fn, op)                                                                       \
    static struct jval fn(struct jrun *r, struct jval v, const struct jargs *args)                 \
    {                                                                                              \
        struct jval other;                                                                         \
        return one_arg(r, args, &other) ? JBOOL(j_compare_op(r, op, v, other)) : JUNDEF;           \
    }
COMPARE_TEST(is_eq, OP_EQ)
COMPARE_TEST(is_ne, OP_NE)
COMPARE_TEST(is_lt, OP_LT)
COMPARE_TEST(is_le, OP_LE)
COMPARE_TEST(is_gt, OP_GT)
COMPARE_TEST(is_ge, OP_GE)
COMPARE_TEST(is_in, OP_IN)

static struct jval is_filter(struct jrun *r, struct jval v, const struct jargs *args)
{
    return alone(r, args) ? JBOOL(v.type == J_STR && j_find_filter(v.s, v.n)) : JUNDEF;
}

static struct jval is_test(struct jrun *r, struct jval v, const struct jargs *args)
{
    return alone(r, args) ? JBOOL(v.type == J_STR && j_find_test(v.s, v.n)) : JUNDEF;
}

const struct jfunc *j_find_test(const char *s, size_t n)
{
    static const struct jfunc table[] = {{"defined", is_defined},
                                         {"undefined", is_undefined},
                                         {"none", is_none},
                                         {"boolean", is_boolean},
                                         {"true", is_true},
                                         {"false", is_false},
                                         {"integer", is_integer},
                                         {"float", is_float},
                                         {"number", is_number},
                                         {"string", is_string},
                                         {"mapping", is_mapping},
                                         {"iterable", is_iterable},
                                         {"sequence", is_sequence},
                                         {"callable", is_callable},
                                         {"escaped", is_escaped},
                                         {"upper", is_upper},
                                         {"lower", is_lower},
                                         {"odd", is_odd},
                                         {"even", is_even},
                                         {"divisibleby", is_divisible},
                                         {"sameas", is_sameas},
                                         {"in", is_in},
                                         {"==", is_eq},
                                         {"eq", is_eq},
                                         {"equalto", is_eq},
                                         {"!=", is_ne},
                                         {"ne", is_ne},
                                         {"<", is_lt},
                                         {"lt", is_lt},
                                         {"lessthan", is_lt},
                                         {"<=", is_le},
                                         {"le", is_le},
                                         {">", is_gt},
                                         {"gt", is_gt},
                                         {"greaterthan", is_gt},
                                         {">=", is_ge},
                                         {"ge", is_ge},
                                         {"filter", is_filter},
                                         {"test", is_test},
                                         {NULL, NULL}};
    return j_find_in(table, s, n);
}
