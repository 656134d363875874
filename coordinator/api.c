/* api: who may ask, the routes, and errors; see api.h. */
#include "coordinator/api.h"

#include <arpa/inet.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIM_BYTES (1 << 20)

/* ---- answers --------------------------------------------------------------------------------- */

static void send_json(struct api *api, struct http_exchange *x, int status, json_t *body)
{
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (text == NULL) {
        api->counts.status[500]++;
        http_respond(x, 500, NULL, NULL, 0);
        return;
    }
    api->counts.status[status]++;
    http_respond(x, status, "application/json", text, strlen(text));
    free(text);
}

void api_json(struct api *api, struct http_exchange *x, json_t *body)
{
    send_json(api, x, 200, body);
}

const char *api_error_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    case 503:
        return "unavailable_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

void api_fail(struct api *api, struct http_exchange *x, int status, const char *param,
              const char *code, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (status == 429 || status == 503) {
        http_header(x, "Retry-After", "1");
    }
    json_t *message = json_string(text);
    if (message == NULL) { /* cut in the middle of a character */
        message = json_string("the request is not valid");
    }
    send_json(api, x, status,
              json_pack("{s:{s:o,s:s,s:s?,s:s?}}", "error", "message", message, "type",
                        api_error_type(status), "param", param, "code", code));
}

int api_status_of(const struct err *err)
{
    return err->code == ERR_USAGE || err->code == ERR_LIMIT ? 400
           : err->code == ERR_AGAIN                         ? 429
           : err->code == ERR_NET                           ? 503
                                                            : 500;
}

void api_fail_err(struct api *api, struct http_exchange *x, const struct err *err)
{
    int status = api_status_of(err);
    api_fail(api, x, status, NULL, status == 429 ? "rate_limit_exceeded" : NULL, "%s", err->text);
}

/* ---- who may ask ----------------------------------------------------------------------------- */

/* Takes the same time whatever differs. */
static int same_text(const char *a, size_t n, const char *b)
{
    size_t m = strlen(b);
    unsigned char differ = (unsigned char)(n != m);
    for (size_t i = 0; i < m; i++) {
        differ |= (unsigned char)((n > 0 ? a[i % n] : 0) ^ b[i]);
    }
    return differ == 0;
}

static int is_key(const struct api *api, const char *text, size_t n)
{
    int found = 0;
    for (int i = 0; i < api->n_key; i++) {
        found |= same_text(text, n, api->key[i]);
    }
    return found;
}

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != 0 ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* Basic is for browsers, which ask for a name and a password: the key is the password. */
static int is_basic_key(const struct api *api, const char *text)
{
    char plain[512];
    size_t n = 0;
    uint32_t bits = 0;
    int have = 0;
    for (; base64_value(*text) >= 0 && n < sizeof plain - 1; text++) {
        bits = bits << 6 | (uint32_t)base64_value(*text);
        have += 6;
        if (have >= 8) {
            have -= 8;
            plain[n++] = (char)(bits >> have & 0xff);
        }
    }
    plain[n] = 0;
    const char *colon = memchr(plain, ':', n);
    return colon != NULL && is_key(api, colon + 1, n - (size_t)(colon + 1 - plain));
}

static int authorised(const struct api *api, const struct http_request *r)
{
    const char *value = http_field_get(r, "authorization");
    if (api->n_key == 0) {
        return 1;
    }
    if (value != NULL && strncasecmp(value, "Bearer ", 7) == 0) {
        return is_key(api, value + 7, strlen(value + 7));
    }
    return value != NULL && strncasecmp(value, "Basic ", 6) == 0 && is_basic_key(api, value + 6);
}

/* The name in a Host field: without the port and the brackets of IPv6. */
static void host_name(const char *field, char *out, size_t size)
{
    const char *end = field[0] == '[' ? strchr(field, ']') : strrchr(field, ':');
    const char *from = field[0] == '[' ? field + 1 : field;
    size_t n = end != NULL ? (size_t)(end - from) : strlen(from);
    snprintf(out, size, "%.*s", (int)(n < size ? n : size - 1), from);
}

/* 127.0.0.0/8 and ::1, as numbers: "127.evil.example" is a name that anybody may have. */
static int is_loopback(const char *name)
{
    struct in_addr v4;
    struct in6_addr v6;
    return inet_pton(AF_INET, name, &v4) == 1    ? ntohl(v4.s_addr) >> 24 == 127
           : inet_pton(AF_INET6, name, &v6) == 1 ? IN6_IS_ADDR_LOOPBACK(&v6)
                                                 : 0;
}

/* A page elsewhere may have its own name point to 127.0.0.1 and then ask us (DNS rebinding): on
 * loopback only loopback's own names are answered to. */
static int host_allowed(const struct api *api, const struct http_request *r)
{
    const char *field = http_field_get(r, "host");
    char name[256];
    if (!api->check_host || field == NULL) {
        return 1;
    }
    host_name(field, name, sizeof name);
    size_t n = strlen(name);
    if (strcasecmp(name, "localhost") == 0 || is_loopback(name) ||
        (n > 10 && strcasecmp(name + n - 10, ".localhost") == 0)) {
        return 1;
    }
    for (int i = 0; i < api->n_host; i++) {
        if (strcasecmp(name, api->host[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

/* A page of another origin may not ask, unless it is the one that --cors-origin names. */
static int origin_allowed(const struct api *api, const struct http_request *r)
{
    const char *origin = http_field_get(r, "origin"), *host = http_field_get(r, "host");
    if (origin == NULL) {
        return 1;
    }
    if (api->cors_origin != NULL &&
        (strcmp(api->cors_origin, "*") == 0 || strcmp(api->cors_origin, origin) == 0)) {
        return 1;
    }
    const char *name = strstr(origin, "://");
    return name != NULL && host != NULL && strcasecmp(name + 3, host) == 0;
}

/* ---- routes ---------------------------------------------------------------------------------- */

enum { NEEDS_BODY = 1, OPEN = 2 /* no key */, EARLY = 4 /* before the model is there */ };

static const struct route {
    const char *method, *path;
    api_route *call;
    int how;
} routes[] = {
    {"POST", "/v1/chat/completions", api_chat, NEEDS_BODY},
    {"POST", "/v1/chat/completions/render", api_render, NEEDS_BODY},
    {"POST", "/apply-template", api_render, NEEDS_BODY},
    {"POST", "/v1/completions", api_completions, NEEDS_BODY},
    {"GET", "/v1/models", api_models, 0},
    {"POST", "/tokenize", api_tokenize, NEEDS_BODY},
    {"POST", "/detokenize", api_detokenize, NEEDS_BODY},
    {"GET", "/tokenizer_info", api_tokenizer_info, 0},
    {"GET", "/health", api_health, OPEN | EARLY},
    {"GET", "/health/live", api_health, OPEN | EARLY},
    {"GET", "/v1/health", api_health, OPEN | EARLY},
    {"GET", "/ping", api_health, OPEN | EARLY},
    {"GET", "/ready", api_ready, OPEN},
    {"GET", "/health/ready", api_ready, OPEN},
    {"GET", "/version", api_version, EARLY},
    {"GET", "/server_info", api_server_info, 0},
    {"GET", "/metrics", api_metrics, 0},
    {"GET", "/sigmoe/status", api_live, 0},
};

static int is_model_path(const char *path)
{
    return strncmp(path, "/v1/models/", 11) == 0 && path[11] != 0;
}

/* HEAD is GET without the body. */
static const struct route *find_route(const struct http_request *r, int *path_known)
{
    const char *path = is_model_path(r->path) ? "/v1/models" : r->path;
    const char *method = strcmp(r->method, "HEAD") == 0 ? "GET" : r->method;
    *path_known = 0;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(routes[i].path, path) == 0) {
            *path_known = 1;
            if (strcmp(routes[i].method, method) == 0) {
                return &routes[i];
            }
        }
    }
    return NULL;
}

static int json_deeper(const json_t *v, int limit)
{
    const char *key;
    json_t *child;
    size_t i;
    if (limit == 0) {
        return 1;
    }
    json_object_foreach((json_t *)(uintptr_t)v, key, child)
    {
        if (json_deeper(child, limit - 1)) {
            return 1;
        }
    }
    json_array_foreach(v, i, child)
    {
        if (json_deeper(child, limit - 1)) {
            return 1;
        }
    }
    return 0;
}

static void call_with_body(struct api *api, struct api_request *r, api_route *route)
{
    json_error_t error;
    json_t *body = json_loadb(r->http->body, r->http->n_body, JSON_REJECT_DUPLICATES, &error);
    if (body == NULL) {
        api_fail(api, r->x, 400, NULL, "invalid_json",
                 "the body is not JSON: %s (line %d, column %d)", error.text, error.line,
                 error.column);
        return;
    }
    if (!json_is_object(body)) {
        api_fail(api, r->x, 400, NULL, "invalid_json", "the body is not a JSON object");
    } else if (json_deeper(body, 64)) {
        api_fail(api, r->x, 400, NULL, "invalid_json", "the body is more than 64 levels deep");
    } else {
        r->body = body;
        route(api, r);
    }
    json_decref(body);
    if (r->http->n_body > TRIM_BYTES) {
        malloc_trim(0); /* thousands of small pieces would keep what the heap grew by */
    }
}

static void no_route(struct api *api, struct http_exchange *x, const struct http_request *r,
                     int path_known)
{
    if (path_known) {
        api_fail(api, x, 405, NULL, "method_not_allowed", "%s takes no %s", r->path, r->method);
    } else {
        api_fail(api, x, 404, NULL, "unknown_url", "there is no %s %.200s here", r->method,
                 r->path);
    }
}

static void cors(const struct api *api, struct http_exchange *x)
{
    if (api->cors_origin != NULL) {
        http_header(x, "Access-Control-Allow-Origin", api->cors_origin);
        http_header(x, "Access-Control-Allow-Headers",
                    "Authorization, Content-Type, X-Request-Id, X-Sigmoe-Domain");
        http_header(x, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
        http_header(x, "Access-Control-Expose-Headers", "X-Request-Id");
        http_header(x, "Vary", "Origin");
    }
}

/* The client's name for its request comes back, or one of ours. */
static void request_id(struct api *api, struct http_exchange *x, const struct http_request *r)
{
    const char *given = http_field_get(r, "x-request-id");
    char own[64];
    if (given == NULL || given[0] == 0 || strlen(given) > 200) {
        snprintf(own, sizeof own, "req-%llx%08llx", (unsigned long long)api->created,
                 (unsigned long long)api->next_id++);
        given = own;
    }
    http_header(x, "X-Request-Id", given);
}

static void forbid(struct api *api, struct http_exchange *x, const char *why)
{
    api_fail(api, x, 403, NULL, "forbidden", "%s", why);
}

static void ask_for_key(struct api *api, struct http_exchange *x, int page)
{
    http_header(x, "WWW-Authenticate", page ? "Basic realm=\"sigmoe\"" : "Bearer");
    api_fail(api, x, 401, NULL, "invalid_api_key",
             "give the server's key as Authorization: Bearer KEY");
}

void api_handle(void *user, struct http_exchange *x, const struct http_request *r)
{
    struct api *api = user;
    struct api_request request = {x, r, NULL};
    int path_known;
    const struct route *route = find_route(r, &path_known);
    const struct api_asset *asset = route == NULL ? api_asset_get(api, r->path) : NULL;
    cors(api, x);
    request_id(api, x, r);
    if (!host_allowed(api, r)) {
        forbid(api, x,
               "this server is on loopback and answers to loopback's names only; a proxy in front "
               "needs --allow-host NAME");
    } else if (!origin_allowed(api, r)) {
        forbid(api, x, "pages of this origin may not call; --cors-origin allows one");
    } else if (strcmp(r->method, "OPTIONS") == 0) {
        api->counts.status[204]++;
        http_respond(x, 204, NULL, NULL, 0);
    } else if ((route == NULL || !(route->how & OPEN)) && !authorised(api, r)) {
        ask_for_key(api, x, asset != NULL);
    } else if (asset != NULL && strcmp(r->method, "POST") != 0) {
        api_asset_send(api, x, asset);
    } else if (route == NULL) {
        no_route(api, x, r, path_known);
    } else if (api->service == NULL && !(route->how & EARLY)) {
        api_fail(api, x, 503, NULL, "loading", "the model is being loaded");
    } else if (route->how & NEEDS_BODY) {
        call_with_body(api, &request, route->call);
    } else {
        route->call(api, &request);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_ping(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    api_ping(w->data);
}

/* How the model's template writes a call is how its text is read. */
static enum api_tool_style style_of(const struct tokenizer *tok)
{
    const char *t = tokenizer_chat_template(tok);
    return t == NULL                             ? TOOLS_NONE
           : strstr(t, "<tool_call>") != NULL    ? TOOLS_TAG
           : strstr(t, "\"parameters\"") != NULL ? TOOLS_OBJECT
                                                 : TOOLS_NONE;
}

void api_open(struct api *api)
{
    struct tok_text text = {0};
    api->tool_style = style_of(api->tok);
    for (int32_t i = 0; i < tokenizer_vocab_size(api->tok); i++) {
        text.n = 0;
        tokenizer_token_bytes(api->tok, i, &text, NULL);
        api->token_bytes_max = text.n > api->token_bytes_max ? text.n : api->token_bytes_max;
    }
    tok_text_fini(&text);
    api->ping.data = api;
    if (api->ping_s > 0) {
        ev_timer_init(&api->ping, on_ping, 0.5, 0.5);
        ev_timer_start(api->loop, &api->ping);
        ev_unref(api->loop);
    }
}

void api_close(struct api *api)
{
    if (ev_is_active(&api->ping)) {
        ev_ref(api->loop);
        ev_timer_stop(api->loop, &api->ping);
    }
    grammar_vocab_unref(api->grammar_vocab);
    api->grammar_vocab = NULL;
}
