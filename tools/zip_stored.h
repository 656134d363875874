/* zip_stored: entries of a zip archive in memory that are stored without compression, as torch.save
 * writes them. Only the central directory at the end is believed, and each of its entries is
 * checked against the bytes there are. */
#ifndef TOOLS_ZIP_STORED_H
#define TOOLS_ZIP_STORED_H

#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

/* zip_stored_find: the first entry whose name ends in `suffix`; *data points into the archive.
 * `path` is used in messages. */
int zip_stored_find(const uint8_t *zip, size_t n, const char *suffix, const char *path,
                    const uint8_t **data, size_t *bytes, struct err *err);

#endif
