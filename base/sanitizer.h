/* sanitizer: which sanitizer this build is for, as gcc and clang each say it, and memory that the
 * address sanitizer shall see nobody touch. */
#ifndef BASE_SANITIZER_H
#define BASE_SANITIZER_H

#if defined(__has_feature)
#define SANITIZER_FEATURE(name) __has_feature(name)
#else
#define SANITIZER_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || SANITIZER_FEATURE(address_sanitizer)
#define SANITIZER_ADDRESS 1
#else
#define SANITIZER_ADDRESS 0
#endif

#if defined(__SANITIZE_THREAD__) || SANITIZER_FEATURE(thread_sanitizer)
#define SANITIZER_THREAD 1
#else
#define SANITIZER_THREAD 0
#endif

#define SANITIZER (SANITIZER_ADDRESS || SANITIZER_THREAD)

#if SANITIZER_ADDRESS
#include <sanitizer/asan_interface.h>
#define POISON(p, bytes)   __asan_poison_memory_region(p, bytes)
#define UNPOISON(p, bytes) __asan_unpoison_memory_region(p, bytes)
#else
#define POISON(p, bytes)   ((void)(p), (void)(bytes))
#define UNPOISON(p, bytes) ((void)(p), (void)(bytes))
#endif

#endif
