/* memory: see memory.h. */
#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096

/* find reads the number behind `key` at a line's beginning; `key` "": of the first line. 0 or -1,
 * also where it says something else, as "max". */
static int find(const char *path, const char *key, uint64_t *out)
{
    char line[512];
    int rc = -1;
    size_t n = strlen(key);
    FILE *f = fopen(path, "r");
    while (f && rc && fgets(line, sizeof(line), f)) {
        unsigned long long value;
        if (strncmp(line, key, n) == 0 && sscanf(line + n, "%llu", &value) == 1) {
            *out = value;
            rc = 0;
        }
    }
    if (f)
        fclose(f);
    return rc;
}

uint64_t memory_resident(void)
{
    unsigned long long total = 0, resident = 0;
    long page = sysconf(_SC_PAGESIZE);
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f)
        return 0;
    if (fscanf(f, "%llu %llu", &total, &resident) != 2)
        resident = 0;
    fclose(f);
    return (uint64_t)resident * (uint64_t)(page > 0 ? page : 0);
}

/* own_group: the folder of this process's group; -1: not of version 2. */
static int own_group(const char *root, char *out, size_t size)
{
    char path[PATH_BYTES], line[PATH_BYTES];
    int rc = -1;
    snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "r");
    while (f && rc && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::/", 4) != 0)
            continue;
        int n = snprintf(out, size, "%s/sys/fs/cgroup%s", root, line[4] ? line + 3 : "");
        rc = n > 0 && (size_t)n < size ? 0 : -1;
    }
    if (f)
        fclose(f);
    return rc;
}

/* left_in: what the group in this folder may still take; UINT64_MAX without a limit. */
static uint64_t left_in(const char *folder)
{
    char path[PATH_BYTES + 32];
    uint64_t limit, used, file = 0;
    snprintf(path, sizeof(path), "%s/memory.max", folder);
    if (find(path, "", &limit) != 0)
        return UINT64_MAX;
    snprintf(path, sizeof(path), "%s/memory.current", folder);
    if (find(path, "", &used) != 0)
        return UINT64_MAX;
    snprintf(path, sizeof(path), "%s/memory.stat", folder);
    if (find(path, "file ", &file) != 0 || file > used)
        file = 0;
    used -= file;
    return used < limit ? limit - used : 0;
}

uint64_t memory_available_in(const char *root)
{
    char path[PATH_BYTES];
    uint64_t kib, least;
    snprintf(path, sizeof(path), "%s/proc/meminfo", root);
    if (find(path, "MemAvailable:", &kib) != 0)
        return 0;
    least = kib * 1024;
    if (own_group(root, path, sizeof(path)) == 0) {
        uint64_t left = left_in(path);
        least = left < least ? left : least;
    }
    return least > 0 ? least : 1;
}

uint64_t memory_available(void)
{
    return memory_available_in("");
}
