/* zip_stored: see zip_stored.h. Layout: APPNOTE.TXT of PKWARE, sections 4.3.7, 4.3.12, 4.3.16; no
 * zip64, so files are below 4 GiB. */
#include "tools/zip_stored.h"

#include <string.h>

#define END_BYTES   22u
#define ENTRY_BYTES 46u
#define LOCAL_BYTES 30u

static uint32_t u16_at(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32_at(const uint8_t *p)
{
    return u16_at(p) | u16_at(p + 2) << 16;
}

/* end_find: the record at the end, behind which only a comment may stand. */
static const uint8_t *end_find(const uint8_t *zip, size_t n)
{
    for (size_t back = END_BYTES; back <= n && back <= END_BYTES + 65535; back++) {
        const uint8_t *at = zip + n - back;
        if (memcmp(at, "PK\5\6", 4) == 0 && u16_at(at + 20) == back - END_BYTES)
            return at;
    }
    return NULL;
}

static int ends_with(const uint8_t *name, size_t n, const char *suffix)
{
    size_t k = strlen(suffix);
    return n >= k && memcmp(name + n - k, suffix, k) == 0;
}

/* entry_data: where a directory entry's bytes lie; NULL: not within the archive, or not stored. */
static const uint8_t *entry_data(const uint8_t *zip, size_t n, const uint8_t *entry, size_t *bytes)
{
    size_t local = u32_at(entry + 42), size = u32_at(entry + 24);
    if (u16_at(entry + 10) != 0 || u32_at(entry + 20) != size || local > n ||
        n - local < LOCAL_BYTES || memcmp(zip + local, "PK\3\4", 4) != 0)
        return NULL;
    size_t at = local + LOCAL_BYTES + u16_at(zip + local + 26) + u16_at(zip + local + 28);
    if (at > n || size > n - at)
        return NULL;
    *bytes = size;
    return zip + at;
}

int zip_stored_find(const uint8_t *zip, size_t n, const char *suffix, const char *path,
                    const uint8_t **data, size_t *bytes, struct err *err)
{
    const uint8_t *end = end_find(zip, n);
    if (!end)
        return err_set(err, ERR_MODEL, "%s: this is no file of torch.save (no zip archive)", path);
    size_t at = u32_at(end + 16), left = u16_at(end + 10);
    for (; left > 0; left--) {
        if (at > n || n - at < ENTRY_BYTES || memcmp(zip + at, "PK\1\2", 4) != 0)
            return err_set(err, ERR_MODEL, "%s: the archive's directory is cut off", path);
        size_t name = u16_at(zip + at + 28);
        size_t rest = name + u16_at(zip + at + 30) + u16_at(zip + at + 32);
        if (rest > n - at - ENTRY_BYTES)
            return err_set(err, ERR_MODEL, "%s: the archive's directory is cut off", path);
        if (ends_with(zip + at + ENTRY_BYTES, name, suffix)) {
            *data = entry_data(zip, n, zip + at, bytes);
            return *data
                       ? 0
                       : err_set(err, ERR_MODEL, "%s: entry %s is packed or cut off", path, suffix);
        }
        at += ENTRY_BYTES + rest;
    }
    return err_set(err, ERR_MODEL, "%s: the archive has no %s", path, suffix);
}
