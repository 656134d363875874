/* jinja_ast: a template after parsing: one kind of node whose fields mean what the list below says.
 * Names of variables are numbers, given out by the parser, so that a look-up compares integers. */
#ifndef MODEL_JINJA_AST_H
#define MODEL_JINJA_AST_H

#include "base/err.h"
#include "model/jinja_mem.h"
#include "model/jinja_value.h"

enum jop {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOTIN
};

enum jkind {
    /* expressions */
    N_CONST,   /* value */
    N_NAME,    /* id, value: the name */
    N_TUPLE,   /* kids */
    N_LIST,    /* kids */
    N_DICT,    /* kids: key, value, key, value ... */
    N_GETATTR, /* a . value */
    N_GETITEM, /* a [ b ] */
    N_SLICE,   /* the b of N_GETITEM: a : b : c, each may be NULL */
    N_CALL,    /* a ( kids ) */
    N_KEYWORD, /* in the kids of calls, after the others: value = a */
    N_FILTER,  /* a | func ( kids ); a NULL: of what is piped in; func NULL: unknown name, value */
    N_TEST,    /* a is func ( kids ) */
    N_NOT,     /* a */
    N_NEG,
    N_POS,
    N_AND, /* a, b */
    N_OR,
    N_BINARY,  /* a op b */
    N_CONCAT,  /* kids joined by ~ */
    N_COMPARE, /* a, then kids: N_OPERAND */
    N_OPERAND, /* op a */
    N_COND,    /* b if a else c (may be NULL) */
    N_NSREF,   /* target only: id . value */
    /* statements */
    N_DATA,        /* value: text */
    N_PRINT,       /* a */
    N_BODY,        /* kids */
    N_IF,          /* kids: test, body, test, body ...; c: else or NULL */
    N_FOR,         /* a: target, b: iterable, kids: body; c: else or NULL; d: filter or NULL */
    N_SET,         /* a: target, b: value */
    N_SETBLOCK,    /* a: target, b: N_FILTER or NULL, c: body */
    N_MACRO,       /* id, value: name; params; c: body */
    N_CALLBLOCK,   /* a: N_CALL; params; c: body */
    N_FILTERBLOCK, /* b: N_FILTER, c: body */
    N_WITH,        /* kids: target, value, target, value ...; c: body */
    N_SCOPED,      /* generation; c: body */
    N_BREAK,
    N_CONTINUE
};

struct jparam {
    const struct jnode *name, *fallback; /* N_NAME; expression or NULL */
};
struct jnode {
    uint8_t kind;    /* enum jkind */
    uint8_t op;      /* enum jop */
    uint16_t height; /* of the tree below, bounded by the parser */
    uint32_t line, column, id;
    struct jval value;
    const struct jnode *a, *b, *c, *d;
    const struct jnode *const *kids; /* [n_kid] */
    uint32_t n_kid;
    uint32_t n_param;
    const struct jparam *params; /* [n_param] */
    const struct jfunc *func;
    bool uses_caller, uses_varargs, uses_kwargs; /* N_MACRO, N_CALLBLOCK */
};

struct jinja {
    struct jmem mem;
    const struct jnode *root;
    const struct jval *name; /* [n_name], J_STR */
    uint32_t n_name;
    uint32_t id_caller, id_varargs, id_kwargs, id_loop;
};

/* Tokens, jinja_lex.c */
enum jtok_kind {
    T_DATA,
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_OP,
    T_EOF
};
struct jtok {
    uint8_t kind; /* enum jtok_kind */
    char op[3];   /* T_OP */
    uint32_t line, column;
    struct jval value; /* T_DATA, T_NAME, T_STRING: J_STR; T_INT, T_FLOAT: the number */
};
struct jtoks {
    struct jtok *v; /* [n], the last is T_EOF */
    size_t n;
};
/* jinja_lex: source is valid UTF-8, '\n' newlines, and outlives the tokens. */
int jinja_lex(struct jmem *mem, const char *source, size_t n_bytes, struct jtoks *out,
              struct err *err);
/* jinja_unescape: the text between the quotes of a string literal. */
int jinja_unescape(struct jmem *mem, struct jtok *tok, struct err *err);
/* jinja_parse fills t->root and the names. */
int jinja_parse(struct jinja *t, const struct jtoks *toks, struct err *err);
/* jinja_syntax writes "chat template, line L, column C: ..." and returns ERR_MODEL. */
int jinja_syntax(struct err *err, uint32_t line, uint32_t column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
