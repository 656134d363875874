/* memory: how much this process has and how much more it may take, as the system tells now. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdint.h>

/* memory_resident: bytes of this process that are in memory, mapped files included. 0: untold. */
uint64_t memory_resident(void);
/* memory_available: bytes it may take without others' being taken away: what the host has
 * available, or what is left in its control group (version 2) where that is less; files' pages that
 * can be read again count as available. At least 1; 0: untold. memory_available_in: the same with
 * proc and sys under `root`, for tests. */
uint64_t memory_available(void);
uint64_t memory_available_in(const char *root);

#endif
