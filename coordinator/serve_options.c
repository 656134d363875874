/* serve_options: see serve_options.h. */
#include "coordinator/serve_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char about[] =
    "Serves a model over HTTP with OpenAI's interface; docs/API.md lists routes and fields. "
    "Listens\n"
    "on loopback unless --host says otherwise; give a key before you do that. The key is asked "
    "for\n"
    "on every path but /health and /ready; a browser asks its user for it as a password.\n"
    "\n"
    "  sigmoe serve ./olmoe --workers 2 --transport tcp\n"
    "  sigmoe serve ./olmoe --workers-at tcp://10.0.0.2:5701,tcp://10.0.0.3:5701 \\\n"
    "      --host 0.0.0.0 --api-key-file /etc/sigmoe.keys\n"
    "  curl http://127.0.0.1:8000/v1/completions -d '{\"prompt\": \"Once upon a time\"}'\n"
    "\n"
    "SIGTERM or SIGINT ends it when running requests have finished; a second one at once.\n"
    "The environment variable SIGMOE_API_KEY is a key where no option gives one.";

static int rebalance_check(struct serve_options *o, struct err *err)
{
    char *end;
    if (o->rebalance == NULL || strcmp(o->rebalance, "off") == 0) {
        return 0;
    }
    o->rebalance_s = strtod(o->rebalance, &end);
    return end != o->rebalance && *end == 0 && o->rebalance_s >= 1 && o->rebalance_s <= 1e7
               ? 0
               : err_set(err, ERR_USAGE,
                         "--rebalance-every %.40s: write a number of seconds from 1 on, or off",
                         o->rebalance);
}

int serve_options_parse(int argc, char **argv, struct serve_options *o, struct err *err)
{
    *o = (struct serve_options){.host = "127.0.0.1",
                                .port = 8000,
                                .body_bytes = 8 << 20,
                                .conns = 1024,
                                .queue = 256,
                                .choices = 16,
                                .prompts = 256,
                                .shutdown_s = 30,
                                .ping_s = 15};
    struct opt opts[HOST_OPTIONS_MAX + 18] = {
        {"host", 0, OPT_STR, &o->host, "ADDRESS", "to listen on (127.0.0.1)", 0, 0},
        {"port", 'p', OPT_INT, &o->port, "N", "to listen on (8000); 0: a free one", 0, 65535},
        {"served-model-name", 0, OPT_STR, &o->name, "NAME",
         "the model's id in requests; default: the folder's name", 0, 0},
        {"api-key-file", 0, OPT_STR, &o->key_file, "FILE",
         "each line is a key that is taken as Authorization: Bearer KEY", 0, 0},
        {"api-key", 0, OPT_STR, &o->key, "KEY",
         "one more; others on this machine can see it in the list of processes", 0, 0},
        {"cors-origin", 0, OPT_STR, &o->cors, "ORIGIN",
         "pages of this origin may call, * for any (default: none)", 0, 0},
        {"allow-host", 0, OPT_STRS, &o->allow_host, "NAME",
         "on loopback, one more name requests may be addressed to (a proxy's)", 0, 0},
        {"max-body", 0, OPT_SIZE, &o->body_bytes, "BYTES", "of a request (8M)", 1024, 1 << 30},
        {"max-conns", 0, OPT_INT, &o->conns, "N", "connections at once (1024)", 1, 100000},
        {"max-queue", 0, OPT_INT, &o->queue, "N",
         "sequences waiting, 429 beyond; also those of one request (256)", 1, 1000000},
        {"max-choices", 0, OPT_INT, &o->choices, "N", "of a request's n (16)", 1, 1024},
        {"max-prompts", 0, OPT_INT, &o->prompts, "N", "prompts in one request (256)", 1, 65536},
        {"ping-interval", 0, OPT_FLOAT, &o->ping_s, "S",
         "a silent stream gets a comment this often (15); 0: never", 0, 86400},
        {"shutdown-timeout", 0, OPT_FLOAT, &o->shutdown_s, "S",
         "that running requests get after SIGTERM (30)", 0, 86400},
        {"admin", 0, OPT_STR, &o->admin, "PATH",
         "socket for sigmoe status, drain, join and rebalance; none: no socket\n"
         "(default: sigmoe-PORT.sock in /run/user/UID or /tmp/sigmoe-UID)",
         0, 0},
        {"rebalance-every", 0, OPT_STR, &o->rebalance, "SECONDS",
         "plan who holds what from the live load this often, and go\n"
         "there where it pays back; off (default): when asked",
         0, 0},
    };
    host_options_table(&o->model, opts + 16);
    const struct opt_command cmd = {"serve", "sigmoe serve MODEL_DIR [options]", about, opts};
    int n = 1, rc = opt_parse(&cmd, argc, argv, &o->dir, &n, err);
    if (rc != 0) {
        return rc;
    }
    if (n != 1) {
        return err_set(err, ERR_USAGE, "which model? sigmoe serve MODEL_DIR");
    }
    rc = rebalance_check(o, err);
    return rc != 0 ? rc : host_options_check(&o->model, err);
}

/* ---- keys ------------------------------------------------------------------------------------ */

static int add_key(char *key[KEYS_MAX], int *n, const char *text, const char *from, struct err *err)
{
    if (text[0] == 0 || strlen(text) > 255 || strpbrk(text, " \t\r\n") != NULL) {
        return err_set(err, ERR_USAGE, "%s: a key is 1 to 255 characters without blanks", from);
    }
    if (*n == KEYS_MAX) {
        return err_set(err, ERR_LIMIT, "%s: more than %d keys", from, KEYS_MAX);
    }
    key[*n] = strdup(text);
    return key[*n] != NULL ? (++*n, 0) : err_set(err, ERR_NOMEM, "no memory for a key");
}

static int read_file(const char *path, char *key[KEYS_MAX], int *n, struct err *err)
{
    char line[512];
    int rc = 0, before = *n;
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return err_sys(err, ERR_IO, "cannot read %s", path);
    }
    while (rc == 0 && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\r\n")] = 0;
        rc = line[0] != 0 && line[0] != '#' ? add_key(key, n, line, path, err) : 0;
    }
    fclose(f);
    return rc != 0 || *n > before ? rc : err_set(err, ERR_USAGE, "%s holds no key", path);
}

int serve_keys_read(const struct serve_options *o, char *key[KEYS_MAX], struct err *err)
{
    int n = 0, rc = 0;
    if (o->key != NULL) {
        rc = add_key(key, &n, o->key, "--api-key", err);
    }
    if (rc == 0 && o->key_file != NULL) {
        rc = read_file(o->key_file, key, &n, err);
    }
    const char *text = getenv("SIGMOE_API_KEY");
    if (rc == 0 && o->key == NULL && o->key_file == NULL && text != NULL && text[0] != 0) {
        rc = add_key(key, &n, text, "SIGMOE_API_KEY", err);
    }
    if (rc != 0) {
        while (n > 0) {
            free(key[--n]);
        }
        return rc;
    }
    return n;
}

int serve_is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}
