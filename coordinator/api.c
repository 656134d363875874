/* api: the routes, the key, and errors; see api.h. */
#include "coordinator/api.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- answers --------------------------------------------------------------------------------- */

static void send_json(struct http_exchange *x, int status, json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (text == NULL) {
        http_respond(x, 500, NULL, NULL, 0);
        return;
    }
    http_respond(x, status, "application/json", text, strlen(text));
    free(text);
}

void api_json(struct http_exchange *x, json_t *body)
{
    send_json(x, 200, body);
}

static const char *error_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    case 503:
        return "unavailable_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

void api_fail(struct http_exchange *x, int status, const char *param, const char *format, ...)
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
    send_json(x, status,
              json_pack("{s:{s:o,s:s,s:s?,s:i}}", "error", "message", message, "type",
                        error_type(status), "param", param, "code", status));
}

void api_fail_err(struct http_exchange *x, const struct err *err)
{
    int status = err->code == ERR_USAGE || err->code == ERR_LIMIT ? 400
                 : err->code == ERR_AGAIN                         ? 429
                                                                  : 500;
    api_fail(x, status, NULL, "%s", err->text);
}

/* ---- the key --------------------------------------------------------------------------------- */

/* Takes the same time whatever differs. */
static int same_text(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned char differ = (unsigned char)(n != m);
    for (size_t i = 0; i < m; i++) {
        differ |= (unsigned char)((n > 0 ? a[i % n] : 0) ^ b[i]);
    }
    return differ == 0;
}

static int authorised(const struct api *api, const struct http_request *r)
{
    if (api->key == NULL) {
        return 1;
    }
    const char *value = http_field_get(r, "authorization");
    return value != NULL && strncmp(value, "Bearer ", 7) == 0 && same_text(value + 7, api->key);
}

/* ---- routes ---------------------------------------------------------------------------------- */

typedef void body_route(struct api *api, struct http_exchange *x, const json_t *body);
typedef void plain_route(struct api *api, struct http_exchange *x);

static const struct route {
    const char *method, *path;
    body_route *with_body;
    plain_route *plain;
    int open; /* needs no key */
} routes[] = {
    {"POST", "/v1/chat/completions", api_chat, NULL, 0},
    {"POST", "/v1/completions", api_completions, NULL, 0},
    {"POST", "/tokenize", api_tokenize, NULL, 0},
    {"POST", "/detokenize", api_detokenize, NULL, 0},
    {"GET", "/health", NULL, api_health, 1},
    {"GET", "/ready", NULL, api_ready, 1},
    {"GET", "/metrics", NULL, api_metrics, 0},
    {"GET", "/sigmoe/status", NULL, api_live, 0},
};

static const struct route *find_route(const struct http_request *r, int *path_known)
{
    *path_known = 0;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(routes[i].path, r->path) == 0) {
            *path_known = 1;
            if (strcmp(routes[i].method, r->method) == 0) {
                return &routes[i];
            }
        }
    }
    return NULL;
}

static void call_with_body(struct api *api, struct http_exchange *x, const struct http_request *r,
                           body_route *route)
{
    json_error_t error;
    json_t *body = json_loadb(r->body, r->n_body, JSON_REJECT_DUPLICATES, &error);
    if (body == NULL) {
        api_fail(x, 400, NULL, "the body is not JSON: %s (line %d, column %d)", error.text,
                 error.line, error.column);
        return;
    }
    if (!json_is_object(body)) {
        api_fail(x, 400, NULL, "the body is not a JSON object");
    } else {
        route(api, x, body);
    }
    json_decref(body);
}

static void cors(const struct api *api, struct http_exchange *x)
{
    if (api->cors_origin != NULL) {
        http_header(x, "Access-Control-Allow-Origin", api->cors_origin);
        http_header(x, "Access-Control-Allow-Headers", "Authorization, Content-Type");
        http_header(x, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    }
}

void api_handle(void *user, struct http_exchange *x, const struct http_request *r)
{
    struct api *api = user;
    api->counts.requests++;
    cors(api, x);
    if (strcmp(r->method, "OPTIONS") == 0) {
        http_respond(x, 204, NULL, NULL, 0);
        return;
    }
    int path_known;
    const struct route *route = find_route(r, &path_known);
    if ((route == NULL || !route->open) && !authorised(api, r)) {
        api_fail(x, 401, NULL, "give the server's key as Authorization: Bearer KEY");
        return;
    }
    if (strcmp(r->method, "GET") == 0 && strncmp(r->path, "/v1/models", 10) == 0 &&
        (r->path[10] == 0 || r->path[10] == '/')) {
        api_models(api, x, r->path[10] == '/' ? r->path + 11 : NULL);
        return;
    }
    const struct api_asset *asset = api_asset_get(api, r->path);
    if (asset != NULL && strcmp(r->method, "GET") == 0) {
        api_asset_send(x, asset);
        return;
    }
    if (route == NULL) {
        api_fail(x, path_known ? 405 : 404, NULL, "there is no %s %.200s here", r->method, r->path);
        return;
    }
    if (route->with_body != NULL) {
        call_with_body(api, x, r, route->with_body);
    } else {
        route->plain(api, x);
    }
}
