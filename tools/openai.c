/* openai: the client over libcurl's multi interface, which waits with a bound, so that Ctrl-C can
 * end one answer without ending the program; see openai.h. */
#include "tools/openai.h"

#include "base/clock.h"
#include "tools/sse.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What a server may send that is not a stream: a list of models, a status, an error. */
#define BODY_BYTES_MAX (16 << 20)

struct openai {
    CURLM *multi;
    CURL *easy;
    struct curl_slist *fields;
    char url[1024];
    char why[CURL_ERROR_SIZE];
    const volatile sig_atomic_t *stop;
};

/* One request under way. */
struct call {
    struct openai *client;
    struct sse sse;
    char *body; /* what came and is no stream: [n_body], NUL-terminated */
    size_t n_body;
    int is_stream, done, failed;
    int64_t start_ns;
    openai_piece_fn *piece;
    void *user;
    struct openai_answer *answer;
    size_t n_text;
    struct err *err;
};

/* ---- life ------------------------------------------------------------------------------------ */

static int set_url(struct openai *c, const char *url, struct err *err)
{
    const char *scheme = strstr(url, "://");
    int n = snprintf(c->url, sizeof c->url, "%s%s", scheme ? "" : "http://", url);
    if (n < 0 || (size_t)n >= sizeof c->url)
        return err_set(err, ERR_USAGE, "the server's address is longer than %zu bytes",
                       sizeof c->url);
    while (n > 0 && c->url[n - 1] == '/')
        c->url[--n] = 0;
    if (n > 3 && strcmp(c->url + n - 3, "/v1") == 0)
        c->url[n - 3] = 0;
    CURLU *u = curl_url();
    CURLUcode bad = u ? curl_url_set(u, CURLUPART_URL, c->url, 0) : CURLUE_OUT_OF_MEMORY;
    curl_url_cleanup(u);
    if (bad != CURLUE_OK || (strncmp(c->url, "http://", 7) && strncmp(c->url, "https://", 8)))
        return err_set(err, ERR_USAGE,
                       "'%s' is not the address of a server; give one like http://127.0.0.1:8000",
                       url);
    return 0;
}

static int add_field(struct openai *c, const char *field)
{
    struct curl_slist *grown = curl_slist_append(c->fields, field);
    c->fields = grown ? grown : c->fields;
    return grown ? 0 : -1;
}

static int set_fields(struct openai *c, const char *key, struct err *err)
{
    char field[1024];
    int bad = add_field(c, "Content-Type: application/json") || add_field(c, "Expect:");
    if (key && strlen(key) + sizeof "Authorization: Bearer " > sizeof field)
        return err_set(err, ERR_USAGE, "the key is longer than a thousand bytes");
    if (key) {
        snprintf(field, sizeof field, "Authorization: Bearer %s", key);
        bad = bad || add_field(c, field);
    }
    return bad ? err_set(err, ERR_NOMEM, "no memory for a request") : 0;
}

int openai_open(const char *url, const char *key, struct openai **out, struct err *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(err, ERR_NOMEM, "libcurl cannot start");
    struct openai *c = calloc(1, sizeof *c);
    int r = c ? set_url(c, url, err) : err_set(err, ERR_NOMEM, "no memory for a client");
    r = r ? r : set_fields(c, key, err);
    if (!r) {
        c->multi = curl_multi_init();
        c->easy = curl_easy_init();
        if (!c->multi || !c->easy)
            r = err_set(err, ERR_NOMEM, "libcurl cannot start");
    }
    if (r) {
        openai_close(c);
        return r;
    }
    *out = c;
    return 0;
}

void openai_close(struct openai *c)
{
    if (!c)
        return;
    curl_easy_cleanup(c->easy);
    if (c->multi)
        curl_multi_cleanup(c->multi);
    curl_slist_free_all(c->fields);
    free(c);
    curl_global_cleanup();
}

int openai_read_key(const char *file, char *key, size_t size, struct err *err)
{
    const char *from = getenv("SIGMOE_API_KEY");
    snprintf(key, size, "%s", from ? from : "");
    if (!file)
        return 0;
    FILE *f = fopen(file, "r");
    if (!f)
        return err_sys(err, ERR_IO, "cannot read %s", file);
    if (!fgets(key, (int)size, f))
        key[0] = 0;
    fclose(f);
    key[strcspn(key, "\r\n")] = 0;
    return key[0] ? 0 : err_set(err, ERR_USAGE, "%s holds no key", file);
}

const char *openai_url(const struct openai *c)
{
    return c->url;
}

void openai_stop_on(struct openai *c, const volatile sig_atomic_t *flag)
{
    c->stop = flag;
}

/* ---- what comes ------------------------------------------------------------------------------ */

static double seconds_since(int64_t start_ns)
{
    return (double)(clock_now(&clock_real) - start_ns) / 1e9;
}

static void copy_text(char *to, size_t size, const json_t *text)
{
    if (json_is_string(text) && json_string_length(text) > 0)
        snprintf(to, size, "%s", json_string_value(text));
}

/* The words of {"error": {"message"}}, or of the variants that other servers send. */
static const char *error_words(const json_t *body)
{
    const json_t *e = json_object_get(body, "error");
    const char *words = json_string_value(e);
    words = words ? words : json_string_value(json_object_get(e, "message"));
    words = words ? words : json_string_value(json_object_get(body, "message"));
    return words ? words : json_string_value(json_object_get(body, "detail"));
}

static void take_usage(struct openai_answer *a, const json_t *usage)
{
    const json_t *prompt = json_object_get(usage, "prompt_tokens");
    const json_t *answer = json_object_get(usage, "completion_tokens");
    if (json_is_integer(prompt))
        a->n_prompt = (int)json_integer_value(prompt);
    if (json_is_integer(answer))
        a->n_answer = (int)json_integer_value(answer);
}

static void take_names(struct openai_answer *a, const json_t *o)
{
    copy_text(a->model, sizeof a->model, json_object_get(o, "model"));
    copy_text(a->domain, sizeof a->domain, json_object_get(o, "domain"));
}

static void take_workers(struct openai_answer *a, const json_t *list)
{
    size_t i, n = 0;
    const json_t *w;
    json_array_foreach(list, i, w)
    {
        const char *name = json_string_value(json_object_get(w, "worker"));
        double share = json_number_value(json_object_get(w, "share"));
        if (name && n + 100 < sizeof a->by)
            n += (size_t)snprintf(a->by + n, sizeof a->by - n, "%s%.64s %.0f %%", n ? ", " : "",
                                  name, 100 * share);
    }
}

static int keep_text(struct call *k, const char *text)
{
    struct openai_answer *a = k->answer;
    size_t n = strlen(text);
    char *grown = realloc(a->text, k->n_text + n + 1);
    if (!grown)
        return err_set(k->err, ERR_NOMEM, "no memory for the answer");
    a->text = grown;
    memcpy(a->text + k->n_text, text, n + 1);
    k->n_text += n;
    return 0;
}

/* A model may say NUL; here texts end there, so it is left out. */
static int take_piece(struct call *k, const json_t *text, int thought)
{
    size_t n = json_string_length(text), m = 0;
    if (!json_is_string(text) || n == 0)
        return 0;
    char *copy = malloc(n + 1);
    if (!copy)
        return err_set(k->err, ERR_NOMEM, "no memory for the answer");
    for (size_t i = 0; i < n; i++)
        if (json_string_value(text)[i])
            copy[m++] = json_string_value(text)[i];
    copy[m] = 0;
    if (k->answer->first_s <= 0)
        k->answer->first_s = seconds_since(k->start_ns);
    int r = thought ? 0 : keep_text(k, copy);
    if (!r)
        k->piece(k->user, copy, thought);
    free(copy);
    return r;
}

/* A chunk of a stream, or a whole answer: "delta", "message" or "text". */
static int take_answer(struct call *k, const json_t *o)
{
    const char *words = json_object_get(o, "error") ? error_words(o) : NULL;
    if (words)
        return err_set(k->err, ERR_PROTO, "%s", words);
    take_names(k->answer, o);
    take_usage(k->answer, json_object_get(o, "usage"));
    take_workers(k->answer, json_object_get(json_object_get(o, "sigmoe"), "computed_by"));
    const json_t *choice = json_array_get(json_object_get(o, "choices"), 0);
    const json_t *said = json_object_get(choice, "delta");
    said = said ? said : json_object_get(choice, "message");
    take_names(k->answer, choice);
    copy_text(k->answer->finish, sizeof k->answer->finish,
              json_object_get(choice, "finish_reason"));
    int r = take_piece(k, json_object_get(said, "reasoning_content"), 1);
    r = r ? r : take_piece(k, json_object_get(said, "content"), 0);
    return r ? r : take_piece(k, json_object_get(choice, "text"), 0);
}

static int on_event(void *user, const char *data, size_t n)
{
    struct call *k = user;
    if (n >= 6 && memcmp(data, "[DONE]", 6) == 0) {
        k->done = 1;
        return 0;
    }
    json_t *o = json_loadb(data, n, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(o)) {
        json_decref(o);
        return err_set(k->err, ERR_PROTO, "the server sent an event that is no JSON: %.80s", data);
    }
    int r = take_answer(k, o);
    json_decref(o);
    return r;
}

static int keep_body(struct call *k, const char *bytes, size_t n)
{
    char *grown = n <= BODY_BYTES_MAX - k->n_body ? realloc(k->body, k->n_body + n + 1) : NULL;
    if (!grown)
        return err_set(k->err, ERR_LIMIT, "the server sent more than %d MiB", BODY_BYTES_MAX >> 20);
    k->body = grown;
    memcpy(grown + k->n_body, bytes, n);
    k->n_body += n;
    grown[k->n_body] = 0;
    return 0;
}

/* An answer that streams says so by its type; everything else is read whole first. */
static size_t on_bytes(char *bytes, size_t size, size_t n, void *user)
{
    struct call *k = user;
    size_t total = size * n;
    if (!k->is_stream && k->n_body == 0) {
        char *type = NULL;
        long status = 0;
        curl_easy_getinfo(k->client->easy, CURLINFO_CONTENT_TYPE, &type);
        curl_easy_getinfo(k->client->easy, CURLINFO_RESPONSE_CODE, &status);
        k->is_stream =
            k->answer && status == 200 && type && strncasecmp(type, "text/event-stream", 17) == 0;
    }
    int r = k->is_stream ? sse_feed(&k->sse, bytes, total, on_event, k, k->err)
                         : keep_body(k, bytes, total);
    k->failed = r;
    return r ? 0 : total; /* 0 makes libcurl end the transfer */
}

/* ---- a request ------------------------------------------------------------------------------- */

static int prepare(struct openai *c, struct call *k, const char *path, const char *body,
                   struct err *err)
{
    char url[sizeof c->url + 256];
    snprintf(url, sizeof url, "%s%s", c->url, path);
    curl_easy_reset(c->easy); /* connections stay */
    c->why[0] = 0;
    CURLcode bad = curl_easy_setopt(c->easy, CURLOPT_URL, url);
    bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->fields);
    bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_USERAGENT, "sigmoe/" SIGMOE_VERSION);
    bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT, 10L);
    bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
    bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_TCP_KEEPALIVE, 1L);
    bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->why);
    bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, k);
    if (body && !bad) {
        bad = curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
        bad = bad ? bad : curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, body);
    }
    return bad ? err_set(err, ERR_NOMEM, "libcurl refuses a request: %s", curl_easy_strerror(bad))
               : 0;
}

static int transfer_result(struct openai *c, CURLcode *result)
{
    int left;
    CURLMsg *m = curl_multi_info_read(c->multi, &left);
    if (!m || m->msg != CURLMSG_DONE)
        return 0;
    *result = m->data.result;
    return 1;
}

/* Runs the transfer to its end, or until the flag says stop. */
static int transfer(struct openai *c, struct call *k, struct err *err)
{
    CURLcode result = CURLE_OK;
    CURLMcode bad = curl_multi_add_handle(c->multi, c->easy);
    int running = 1, stopped = 0, ended = 0;
    while (!bad && running && !stopped) {
        bad = curl_multi_perform(c->multi, &running);
        ended = transfer_result(c, &result);
        if (!bad && running)
            bad = curl_multi_poll(c->multi, NULL, 0, 100, NULL);
        stopped = c->stop && *c->stop;
    }
    curl_multi_remove_handle(c->multi, c->easy);
    if (k->failed)
        return k->failed;
    if (ended && result == CURLE_OK)
        return 0;
    if (stopped)
        return err_set(err, ERR_AGAIN, "stopped");
    const char *why = c->why[0] ? c->why : curl_easy_strerror(result);
    return err_set(err, ERR_NET, "%s: %s", c->url, bad ? curl_multi_strerror(bad) : why);
}

/* The body as JSON, or what the server said instead. */
static int read_body(struct openai *c, struct call *k, json_t **out, struct err *err)
{
    long status = 0;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    json_t *o = json_loadb(k->body ? k->body : "", k->n_body, JSON_ALLOW_NUL, NULL);
    const char *words = error_words(o);
    int r = 0;
    if (status < 200 || status > 299)
        r = err_set(err, ERR_PROTO, "%s (HTTP %ld from %s)", words ? words : "refused", status,
                    c->url);
    else if (!o)
        r = err_set(err, ERR_PROTO,
                    "%s does not answer in JSON; is it an OpenAI-compatible server?", c->url);
    if (r)
        json_decref(o);
    else
        *out = o;
    return r;
}

static void call_fini(struct call *k)
{
    sse_fini(&k->sse);
    free(k->body);
}

int openai_get(struct openai *c, const char *path, json_t **out, struct err *err)
{
    struct call k = {.client = c, .err = err};
    int r = prepare(c, &k, path, NULL, err);
    r = r ? r : transfer(c, &k, err);
    r = r ? r : read_body(c, &k, out, err);
    call_fini(&k);
    return r;
}

int openai_chat(struct openai *c, json_t *request, openai_piece_fn *piece, void *user,
                struct openai_answer *out, struct err *err)
{
    *out = (struct openai_answer){.n_prompt = -1, .n_answer = -1};
    struct call k = {.client = c, .err = err, .answer = out, .piece = piece, .user = user};
    int chat = json_object_get(request, "messages") != NULL;
    json_object_set_new(request, "stream", json_true());
    json_object_set_new(request, "stream_options", json_pack("{s:b}", "include_usage", 1));
    char *body = json_dumps(request, JSON_COMPACT);
    int r = body ? 0 : err_set(err, ERR_NOMEM, "no memory for the request");
    r = r ? r : prepare(c, &k, chat ? "/v1/chat/completions" : "/v1/completions", body, err);
    k.start_ns = clock_now(&clock_real);
    r = r ? r : transfer(c, &k, err);
    if (!r && !k.is_stream) {
        json_t *o = NULL;
        r = read_body(c, &k, &o, err);
        r = r ? r : take_answer(&k, o);
        json_decref(o);
    } else if (!r && !k.done && !out->finish[0]) {
        r = err_set(err, ERR_GONE, "%s ended the answer in the middle", c->url);
    }
    out->total_s = seconds_since(k.start_ns);
    call_fini(&k);
    free(body);
    return r;
}

void openai_answer_fini(struct openai_answer *a)
{
    free(a->text);
    *a = (struct openai_answer){0};
}
