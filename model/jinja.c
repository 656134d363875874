/* jinja: compile and render, and what a rendering is charged with. */
#include "model/jinja.h"
#include "model/jinja_json.h"
#include "model/jinja_run.h"
#include "model/jinja_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOURCE_BYTES_MAX ((size_t)1 << 20) /* the largest published template has 30 KB */
#define SOURCE_MEM_MAX   ((size_t)256 << 20)
#define RENDER_MEM_BASE  ((size_t)32 << 20)
#define RENDER_MEM_SCALE ((size_t)16)

static void fail_with(struct jrun *r, int code, const char *format, va_list args)
{
    char text[900];
    if (r->rc)
        return;
    vsnprintf(text, sizeof text, format, args);
    text_mend(text);
    r->rc = err_set(r->err, code, "chat template, line %u: %s", r->line, text);
}

void j_fail(struct jrun *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_with(r, ERR_USAGE, format, args);
    va_end(args);
}

void j_limit(struct jrun *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_with(r, ERR_LIMIT, format, args);
    va_end(args);
}

bool j_step(struct jrun *r, size_t bulk)
{
    if (r->rc)
        return false;
    size_t cost = 1 + bulk / 64;
    if (cost > (size_t)r->steps_left) {
        j_limit(r, "more than %ld steps", r->steps_max);
        return false;
    }
    r->steps_left -= (long)cost;
    return true;
}

void *j_alloc(struct jrun *r, size_t n, size_t size)
{
    size_t bytes;
    if (r->rc)
        return NULL;
    void *p = __builtin_mul_overflow(n, size, &bytes) ? NULL : jmem_alloc(&r->mem, bytes);
    if (!p)
        j_limit(r, "more memory than the %zu bytes allowed", r->mem.max_bytes);
    return p;
}

/* newlines_normal copies with every line end as \n and without the last one, as Jinja2 reads. */
static size_t newlines_normal(const char *s, size_t n, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\r') {
            out[k++] = '\n';
            i += i + 1 < n && s[i + 1] == '\n';
        } else {
            out[k++] = s[i];
        }
    }
    return k && out[k - 1] == '\n' ? k - 1 : k;
}

static int compile_into(struct jinja *t, const char *source, size_t n_bytes, struct err *err)
{
    struct jtoks toks;
    if (n_bytes > SOURCE_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "chat template: %zu bytes, at most %zu are allowed", n_bytes,
                       SOURCE_BYTES_MAX);
    if (!text_valid(source, n_bytes) || memchr(source, 0, n_bytes))
        return err_set(err, ERR_MODEL, "chat template: not UTF-8 text");
    char *copy = jmem_alloc(&t->mem, n_bytes + 1);
    if (!copy)
        return err_set(err, ERR_NOMEM, "chat template: no memory for %zu bytes", n_bytes);
    size_t n = newlines_normal(source, n_bytes, copy);
    int rc = jinja_lex(&t->mem, copy, n, &toks, err);
    return rc ? rc : jinja_parse(t, &toks, err);
}

int jinja_compile(const char *source, size_t n_bytes, struct jinja **out, struct err *err)
{
    struct jinja *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(err, ERR_NOMEM, "chat template: no memory");
    jmem_init(&t->mem, SOURCE_MEM_MAX);
    int rc = compile_into(t, source, n_bytes, err);
    if (rc) {
        jinja_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void jinja_free(struct jinja *t)
{
    if (!t)
        return;
    jmem_fini(&t->mem);
    free(t);
}

/* bind_vars gives the names that the template uses their values; what it does not name is not read.
 */
static void bind_vars(struct jrun *r, const struct jinja_var *vars, size_t n_var)
{
    r->ctx = j_alloc(r, r->t->n_name ? r->t->n_name : 1, sizeof *r->ctx);
    if (!r->ctx)
        return;
    for (uint32_t i = 0; i < r->t->n_name; i++)
        r->ctx[i].type = J_TYPE_COUNT;
    for (size_t v = 0; v < n_var; v++) {
        for (uint32_t i = 0; i < r->t->n_name; i++) {
            if (j_is_str(r->t->name[i], vars[v].name, strlen(vars[v].name)))
                r->ctx[i] = j_from_json(r, vars[v].value);
        }
    }
}

static void check_limits(const struct jinja_limits *l, struct jrun *r)
{
    size_t memory;
    r->steps_left = r->steps_max = l->steps > 0 ? l->steps : 1;
    r->depth_max = l->depth > 0 ? l->depth : 1;
    r->bytes_max = l->bytes;
    if (__builtin_mul_overflow(l->bytes, RENDER_MEM_SCALE, &memory) ||
        __builtin_add_overflow(memory, RENDER_MEM_BASE, &memory))
        memory = SIZE_MAX;
    jmem_init(&r->mem, memory);
}

static int take_text(struct jrun *r, const struct jbuf *out, char **text, size_t *n)
{
    char *copy = malloc(out->n + 1);
    if (!copy)
        return err_set(r->err, ERR_NOMEM, "chat template: no memory for %zu bytes of output",
                       out->n);
    if (out->n)
        memcpy(copy, out->p, out->n);
    copy[out->n] = 0;
    *text = copy;
    *n = out->n;
    return 0;
}

int jinja_render(const struct jinja *t, const struct jinja_var *vars, size_t n_var,
                 const struct jinja_limits *limits, int64_t now, char **text, size_t *n,
                 struct err *err)
{
    struct jbuf out = {0};
    struct jscope root = {0};
    struct jrun r = {.t = t, .err = err, .now = now, .line = 1, .scope = &root, .out = &out};
    check_limits(limits, &r);
    bind_vars(&r, vars, n_var);
    if (!r.rc)
        j_exec(&r, t->root);
    int rc = r.rc ? r.rc : take_text(&r, &out, text, n);
    jmem_fini(&r.mem);
    return rc;
}
