/* jinja_text: code points in valid UTF-8, and what Python's str methods know about characters. */
#ifndef MODEL_JINJA_TEXT_H
#define MODEL_JINJA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool text_valid(const char *s, size_t n);
/* text_mend: what is no UTF-8 (a text cut inside a character) becomes '?'. */
void text_mend(char *s);
/* text_next decodes at *i < n and moves *i behind it. text_prev: the one that ends at *i > 0. */
uint32_t text_next(const char *s, size_t n, size_t *i);
uint32_t text_prev(const char *s, size_t *i);
/* text_put writes cp, at most 4 bytes, and returns how many. */
size_t text_put(uint32_t cp, char out[4]);
size_t text_count(const char *s, size_t n);
/* text_offset: the byte at which code point k begins; n when there are fewer. */
size_t text_offset(const char *s, size_t n, size_t k);

bool text_space(uint32_t cp);     /* str.isspace, and \s of re */
bool text_line_end(uint32_t cp);  /* what str.splitlines splits at */
bool text_printable(uint32_t cp); /* str.isprintable */
bool text_name_start(uint32_t cp), text_name_part(uint32_t cp);
bool text_alpha(uint32_t cp), text_digit(uint32_t cp), text_decimal(uint32_t cp);
bool text_numeric(uint32_t cp);
bool text_lower_letter(uint32_t cp), text_upper_letter(uint32_t cp), text_title_letter(uint32_t cp);
bool text_cased(uint32_t cp), text_case_ignorable(uint32_t cp);
/* The mappings of Unicode's SpecialCasing included; at most 3 code points, returns how many. */
int text_upper(uint32_t cp, uint32_t out[3]);
int text_title(uint32_t cp, uint32_t out[3]);
int text_lower(uint32_t cp, uint32_t out[3]);

#endif
