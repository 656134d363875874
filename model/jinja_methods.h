/* jinja_methods: the methods of Python's types that templates may call. */
#ifndef MODEL_JINJA_METHODS_H
#define MODEL_JINJA_METHODS_H

#include "model/jinja_run.h"

/* j_find_method: NULL when values of v's type have no such method. */
const struct jfunc *j_find_method(struct jval v, const char *s, size_t n);
extern const struct jfunc j_str_methods[], j_str_case_methods[]; /* end with a NULL name */

/* Texts. jstr_map: upper, lower, title, capitalize as Python's str has them. jstr_strip: chars NONE
 * is white space; sides 1 left, 2 right, 3 both. jstr_replace: count < 0 is all. */
enum jcase { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP };
struct jval jstr_map(struct jrun *r, struct jval s, enum jcase how);
struct jval jstr_strip(struct jrun *r, struct jval s, struct jval chars, int sides);
struct jval jstr_replace(struct jrun *r, struct jval s, struct jval from, struct jval to,
                         int64_t count);
struct jval jstr_join(struct jrun *r, struct jval sep, struct jval items, bool convert);
struct jlist *jstr_lines(struct jrun *r, struct jval s, bool keep);
struct jval jstr_is_case(struct jrun *r, struct jval s, enum jcase how);
struct jval jstr_pad(struct jrun *r, struct jval s, int64_t width, char fill, int side);

#endif
