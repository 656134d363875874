/* pickle: a stack machine over opcodes (protocol 2 to 4; Python's pickletools describes each).
 * Sizes are checked against what is left; the number of nodes and the stack are bounded. Values may
 * share parts, and a hostile file may make a value part of itself: nobody here walks a value deeper
 * than a fixed number of steps. */
#include "tools/pickle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES_MAX 1000000
#define STACK_MAX 100000
#define TEXT_MAX  4096

struct pickle {
    struct pickle_node *nodes, *root;
    int n_node;
};

struct machine {
    struct pickle *p;
    const uint8_t *at, *end;
    const char *path;
    size_t size;
    struct pickle_node **stack, **memo; /* [STACK_MAX] each; a NULL on the stack is a mark */
    int n_stack, n_memo;
    struct err *err;
};

static int refuse(struct machine *m, const char *what)
{
    return err_set(m->err, ERR_MODEL, "%s: at byte %zu of its pickle: %s", m->path,
                   m->size - (size_t)(m->end - m->at), what);
}

static struct pickle_node *node(struct machine *m, enum pickle_kind kind)
{
    struct pickle_node *n = m->p->n_node < NODES_MAX ? calloc(1, sizeof(*n)) : NULL;
    if (!n)
        return NULL;
    n->kind = kind;
    n->next = m->p->nodes;
    m->p->nodes = n;
    m->p->n_node++;
    return n;
}

static int push(struct machine *m, struct pickle_node *n, int is_mark)
{
    if ((!n && !is_mark) || m->n_stack == STACK_MAX)
        return refuse(m, "too many values");
    m->stack[m->n_stack++] = n;
    return 0;
}

static struct pickle_node *pop(struct machine *m)
{
    return m->n_stack > 0 ? m->stack[--m->n_stack] : NULL;
}

static struct pickle_node *top(struct machine *m)
{
    return m->n_stack > 0 ? m->stack[m->n_stack - 1] : NULL;
}

static int add_item(struct pickle_node *to, struct pickle_node *item)
{
    if (to->n_item == to->item_room) {
        int room = to->item_room ? to->item_room * 2 : 4;
        struct pickle_node **grown = realloc(to->item, (size_t)room * sizeof(*grown));
        if (!grown)
            return -1;
        to->item = grown;
        to->item_room = room;
    }
    to->item[to->n_item++] = item;
    return 0;
}

/* take_mark moves what lies above the last mark into `to` and drops the mark. */
static int take_mark(struct machine *m, struct pickle_node *to)
{
    int mark = m->n_stack - 1;
    while (mark >= 0 && m->stack[mark])
        mark--;
    if (mark < 0 || !to)
        return refuse(m, "no mark");
    for (int i = mark + 1; i < m->n_stack; i++)
        if (add_item(to, m->stack[i]))
            return refuse(m, "no memory");
    m->n_stack = mark;
    return 0;
}

static int64_t number(struct machine *m, int bytes, int is_signed)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)m->at[i] << (8 * i);
    m->at += bytes;
    int unused = 64 - 8 * bytes;
    return is_signed && bytes > 0 ? (int64_t)(v << unused) >> unused : (int64_t)v;
}

static int push_number(struct machine *m, int64_t value)
{
    struct pickle_node *n = node(m, PICKLE_INT);
    if (n)
        n->number = value;
    return push(m, n, 0);
}

static int push_float(struct machine *m)
{
    struct pickle_node *n = node(m, PICKLE_FLOAT);
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | *m->at++;
    if (n)
        memcpy(&n->real, &bits, sizeof(bits));
    return push(m, n, 0);
}

static int push_text(struct machine *m, enum pickle_kind kind, size_t length)
{
    struct pickle_node *n = node(m, kind);
    if (length > (size_t)(m->end - m->at) || length > TEXT_MAX)
        return refuse(m, "a text is too long");
    if (memchr(m->at, '\0', length))
        return refuse(m, "a text holds a zero byte");
    if (n && !(n->text = strndup((const char *)m->at, length)))
        return refuse(m, "no memory");
    m->at += length;
    return push(m, n, 0);
}

/* push_global: two lines, module and name. */
static int push_global(struct machine *m)
{
    const uint8_t *first = memchr(m->at, '\n', (size_t)(m->end - m->at));
    const uint8_t *last = first ? memchr(first + 1, '\n', (size_t)(m->end - first - 1)) : NULL;
    struct pickle_node *n = node(m, PICKLE_GLOBAL);
    if (!last || last - m->at > TEXT_MAX || memchr(m->at, '\0', (size_t)(last - m->at)))
        return refuse(m, "a name is cut off, or no text");
    if (n && (n->text = strndup((const char *)m->at, (size_t)(last - m->at))))
        n->text[first - m->at] = ' ';
    m->at = last + 1;
    return push(m, n, 0);
}

/* stack_global: module and name as texts. */
static int stack_global(struct machine *m)
{
    const struct pickle_node *name = pop(m), *module = pop(m);
    struct pickle_node *n = node(m, PICKLE_GLOBAL);
    if (!name || !module || !name->text || !module->text || !n)
        return refuse(m, "a global is no two texts");
    size_t length = strlen(module->text) + strlen(name->text) + 2;
    n->text = malloc(length);
    if (!n->text)
        return refuse(m, "no memory");
    snprintf(n->text, length, "%s %s", module->text, name->text);
    return push(m, n, 0);
}

static int push_few(struct machine *m, enum pickle_kind kind, int n)
{
    struct pickle_node *list = node(m, kind);
    if (!list || m->n_stack < n)
        return refuse(m, "too few values");
    for (int i = m->n_stack - n; i < m->n_stack; i++)
        if (!m->stack[i] || add_item(list, m->stack[i]))
            return refuse(m, "a mark where a value belongs");
    m->n_stack -= n;
    return push(m, list, 0);
}

static int push_marked(struct machine *m, enum pickle_kind kind)
{
    struct pickle_node *list = node(m, kind);
    int rc = take_mark(m, list);
    return rc ? rc : push(m, list, 0);
}

/* extend: what lies above the mark goes into the list or dictionary below it. */
static int extend(struct machine *m, enum pickle_kind kind)
{
    struct pickle_node gathered = {0};
    int rc = take_mark(m, &gathered);
    struct pickle_node *to = top(m);
    if (rc == 0 && (!to || to->kind != kind || (kind == PICKLE_DICT && gathered.n_item % 2)))
        rc = refuse(m, "items for what is no list or dictionary");
    for (int i = 0; rc == 0 && i < gathered.n_item; i++)
        rc = add_item(to, gathered.item[i]) ? refuse(m, "no memory") : 0;
    free(gathered.item);
    return rc;
}

static int put_few(struct machine *m, enum pickle_kind kind, int n)
{
    struct pickle_node *to = m->n_stack > n ? m->stack[m->n_stack - n - 1] : NULL;
    if (!to || to->kind != kind)
        return refuse(m, "items for what is no list or dictionary");
    for (int i = m->n_stack - n; i < m->n_stack; i++)
        if (!m->stack[i] || add_item(to, m->stack[i]))
            return refuse(m, "a mark where a value belongs");
    m->n_stack -= n;
    return 0;
}

static int memo_put(struct machine *m, int64_t i)
{
    if (i < 0 || i >= STACK_MAX || !top(m))
        return refuse(m, "a memo is out of range");
    m->memo[i] = top(m);
    m->n_memo = i >= m->n_memo ? (int)i + 1 : m->n_memo;
    return 0;
}

static int memo_get(struct machine *m, int64_t i)
{
    if (i < 0 || i >= STACK_MAX || !m->memo[i])
        return refuse(m, "a memo that was not put");
    return push(m, m->memo[i], 0);
}

/* operand_bytes: fixed operands of an opcode; -1: an opcode that is not understood. */
static int operand_bytes(uint8_t op)
{
    switch (op) {
    case '(':
    case '.':
    case ']':
    case '}':
    case ')':
    case 't':
    case 'l':
    case 'e':
    case 'a':
    case 'u':
    case 's':
    case 'R':
    case 'Q':
    case 'N':
    case 'b':
    case '0':
    case 'c':
    case 0x85:
    case 0x86:
    case 0x87:
    case 0x88:
    case 0x89:
    case 0x93:
    case 0x94:
        return 0;
    case 0x80:
    case 'K':
    case 'q':
    case 'h':
    case 0x8c:
    case 0x8a:
    case 'U':
        return 1;
    case 'M':
        return 2;
    case 'J':
    case 'r':
    case 'j':
    case 'X':
        return 4;
    case 'G':
    case 0x95:
        return 8;
    default:
        return -1;
    }
}

static int push_long(struct machine *m)
{
    int64_t n = number(m, 1, 0);
    if (n > 8 || n > m->end - m->at)
        return refuse(m, "a number of more than 8 bytes");
    return push_number(m, number(m, (int)n, 1));
}

/* step takes one opcode whose fixed operands are there; 1: the document is complete. */
static int step(struct machine *m, uint8_t op)
{
    switch (op) {
    case 0x80: /* protocol */
        return number(m, 1, 0) > 5 ? refuse(m, "an unknown protocol") : 0;
    case 0x95: /* frame */
        m->at += 8;
        return 0;
    case '(':
        return push(m, NULL, 1);
    case '}':
        return push(m, node(m, PICKLE_DICT), 0);
    case ']':
    case ')':
        return push(m, node(m, PICKLE_LIST), 0);
    case 'N':
        return push(m, node(m, PICKLE_NONE), 0);
    case 0x88:
    case 0x89:
        return push_number(m, op == 0x88);
    case 'K':
        return push_number(m, number(m, 1, 0));
    case 'M':
        return push_number(m, number(m, 2, 0));
    case 'J':
        return push_number(m, number(m, 4, 1));
    case 0x8a:
        return push_long(m);
    case 'G':
        return push_float(m);
    case 'X':
        return push_text(m, PICKLE_TEXT, (size_t)number(m, 4, 0));
    case 0x8c:
    case 'U':
        return push_text(m, PICKLE_TEXT, (size_t)number(m, 1, 0));
    case 'c':
        return push_global(m);
    case 0x93:
        return stack_global(m);
    case 't':
    case 'l':
        return push_marked(m, PICKLE_LIST);
    case 0x85:
    case 0x86:
    case 0x87:
        return push_few(m, PICKLE_LIST, op - 0x84);
    case 'R':
        return push_few(m, PICKLE_CALL, 2);
    case 'Q':
        return push_few(m, PICKLE_PERSID, 1);
    case 'u':
        return extend(m, PICKLE_DICT);
    case 'e':
        return extend(m, PICKLE_LIST);
    case 's':
        return put_few(m, PICKLE_DICT, 2);
    case 'a':
        return put_few(m, PICKLE_LIST, 1);
    case 'b':
    case '0': /* a state that is not needed; a value dropped */
        return pop(m) ? 0 : refuse(m, "too few values");
    case 'q':
        return memo_put(m, number(m, 1, 0));
    case 'r':
        return memo_put(m, number(m, 4, 0));
    case 0x94:
        return memo_put(m, m->n_memo);
    case 'h':
        return memo_get(m, number(m, 1, 0));
    case 'j':
        return memo_get(m, number(m, 4, 0));
    default: /* '.' */
        m->p->root = pop(m);
        return m->p->root ? 1 : refuse(m, "it holds nothing");
    }
}

int pickle_parse(const uint8_t *bytes, size_t n, const char *path, struct pickle **out,
                 struct err *err)
{
    struct machine m = {.at = bytes, .end = bytes + n, .path = path, .size = n, .err = err};
    int rc = 0;
    m.p = calloc(1, sizeof(*m.p));
    m.stack = calloc(STACK_MAX, sizeof(*m.stack));
    m.memo = calloc(STACK_MAX, sizeof(*m.memo));
    if (!m.p || !m.stack || !m.memo)
        rc = err_set(err, ERR_NOMEM, "no memory to read %s", path);
    while (rc == 0) {
        uint8_t op = m.at < m.end ? *m.at++ : 0;
        int operands = operand_bytes(op);
        if (operands < 0)
            rc = refuse(&m, "something other than plain values and tensors, or the end");
        else if (operands > m.end - m.at)
            rc = refuse(&m, "it is cut off");
        else
            rc = step(&m, op);
    }
    free(m.stack);
    free(m.memo);
    if (rc < 0) {
        pickle_destroy(m.p);
        return rc;
    }
    *out = m.p;
    return 0;
}

void pickle_destroy(struct pickle *p)
{
    if (!p)
        return;
    for (struct pickle_node *n = p->nodes, *next; n; n = next) {
        next = n->next;
        free(n->text);
        free(n->item);
        free(n);
    }
    free(p);
}

const struct pickle_node *pickle_root(const struct pickle *p)
{
    return p->root;
}

const struct pickle_node *pickle_get(const struct pickle_node *dict, const char *key)
{
    for (int i = 0; dict->kind == PICKLE_DICT && i + 1 < dict->n_item; i += 2)
        if (dict->item[i]->kind == PICKLE_TEXT && strcmp(dict->item[i]->text, key) == 0)
            return dict->item[i + 1];
    return NULL;
}
