/* api_turn: where the last question of a conversation begins. A model's domain is found out from
 * there: what a conversation was about before says less than what is asked now. The rendered text
 * is searched for the message as it was written, and what stands before it is tokenized alone; the
 * two tokenizations part where the message begins, or a little before. */
#include "coordinator/api.h"

#include <string.h>

/* A message that leaves fewer tokens than this to the end (the marks of the template among them)
 * does not tell its domain. */
#define TURN_TOKENS 6

/* The last occurrence of `what` in text[0, n); -1: none. */
static int64_t find_last(const char *text, size_t n, const char *what, size_t length)
{
    for (size_t at = n >= length ? n - length + 1 : 0; length > 0 && at-- > 0;) {
        if (text[at] == what[0] && memcmp(text + at, what, length) == 0) {
            return (int64_t)at;
        }
    }
    return -1;
}

/* How many of ids stand for text[0, n), as far as they are the same in both tokenizations. */
static int tokens_before(struct api *api, const char *text, size_t n, unsigned flags,
                         const struct tok_ids *ids)
{
    struct tok_ids before = {0};
    int same = 0;
    if (n > 0 && api_ids_of_text(api, text, n, flags, 0, &before, NULL) == 0) {
        while ((size_t)same < before.n && (size_t)same < ids->n &&
               before.id[same] == ids->id[same]) {
            same++;
        }
    }
    tok_ids_fini(&before);
    return same;
}

/* The last message of the user's before number i of the list; -1: none. */
static int user_before(const json_t *messages, int i)
{
    while (--i >= 0) {
        const char *role =
            json_string_value(json_object_get(json_array_get(messages, (size_t)i), "role"));
        if (role != NULL && strcmp(role, "user") == 0) {
            return i;
        }
    }
    return -1;
}

int api_last_turn(struct api *api, const json_t *messages, const char *text, size_t n,
                  unsigned flags, const struct tok_ids *ids)
{
    if (api->model->desc.n_domain < 2) {
        return 0;
    }
    int i = user_before(messages, (int)json_array_size(messages));
    while (i >= 0 && user_before(messages, i) >= 0) {
        const json_t *content = json_object_get(json_array_get(messages, (size_t)i), "content");
        int64_t at = json_is_string(content) ? find_last(text, n, json_string_value(content),
                                                         json_string_length(content))
                                             : -1;
        if (at < 0) {
            return 0;
        }
        int before = tokens_before(api, text, (size_t)at, flags, ids);
        if ((int)ids->n - before >= TURN_TOKENS) {
            return before > 0 ? before - 1 : 0;
        }
        n = (size_t)at;
        i = user_before(messages, i);
    }
    return 0;
}
