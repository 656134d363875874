/* report_page: tools/report.html as bytes, made by cmake/embed.cmake when sigmoe is built. */
#ifndef TOOLS_REPORT_PAGE_H
#define TOOLS_REPORT_PAGE_H

#include <stddef.h>

extern const unsigned char report_page[];
extern const size_t report_page_bytes;

#endif
