/* keys: `sigmoe keys new FILE` and `sigmoe keys show FILE`; what keys are for: proto/keys.h. */
#include "proto/keys.h"
#include "base/opt.h"
#include "tools/commands.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct opt_command command = {
    .name = "keys",
    .usage = "sigmoe keys new FILE | show FILE [options]",
    .about =
        "Makes the keys that keep strangers out of a cluster and hide what passes in it.\n\n"
        "One key for all, the simplest: make it, bring it to every host (scp), name it "
        "everywhere.\n"
        "  sigmoe keys new cluster.key\n"
        "  sigmoe worker --model M --listen tcp://10.0.0.7:5701 --wire-key cluster.key\n"
        "  sigmoe serve M --workers-at tcp://10.0.0.7:5701 --wire-key cluster.key\n\n"
        "A key a host: nobody who takes one host can pose as another. Workers allow the\n"
        "coordinators' public keys, coordinators name each worker's behind its endpoint.\n"
        "  sigmoe keys new worker7.key              (on host 7; the .pub file has its public key)\n"
        "  sigmoe worker ... --wire-key worker7.key --allow coordinators.pub\n"
        "  sigmoe serve M --workers-at tcp://10.0.0.7:5701#$(sigmoe keys show worker7.key.pub)\n"
        "      --wire-key coordinator.key\n\n"
        "FILE has the secret and mode 600, FILE.pub the public half. Keys are Curve25519's, the\n"
        "wire is ZeroMQ's CURVE.",
};

/* show_public: of a .pub file, whose first word is the key. */
static int show_public(const char *path, struct err *err)
{
    char line[512] = "";
    uint8_t key[WIRE_KEY_BYTES];
    FILE *f = fopen(path, "re");
    if (!f)
        return err_sys(err, ERR_IO, "cannot read %s", path);
    int got = fgets(line, sizeof(line), f) != NULL;
    fclose(f);
    if (!got || wire_key_parse(line, key))
        return err_set(err, ERR_USAGE, "%s has no public key in its first line", path);
    printf("%.64s\n", line);
    return 0;
}

static int show(const char *path, struct err *err)
{
    char text[WIRE_KEY_TEXT];
    struct wire_keys *k;
    size_t n = strlen(path);
    if (n > 4 && strcmp(path + n - 4, ".pub") == 0)
        return show_public(path, err);
    int rc = wire_keys_open(path, NULL, &k, err);
    if (rc)
        return rc;
    wire_key_text(k->public_key, text);
    printf("%s\n", text);
    wire_keys_close(k);
    return 0;
}

static int make(const char *path, struct err *err)
{
    char text[WIRE_KEY_TEXT], host[128] = "";
    gethostname(host, sizeof(host) - 1);
    int rc = wire_keys_create(path, host, text, err);
    if (rc == 0)
        printf("%s: secret, keep it; %s.pub: public\n%s\n", path, path, text);
    return rc;
}

int cmd_keys(int argc, char **argv)
{
    const struct opt opts[] = {{NULL, 0, OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    struct opt_command c = command;
    const char *positional[2] = {NULL, NULL};
    int n = 2;
    struct err err = {0};
    c.opts = opts;
    int rc = opt_parse(&c, argc, argv, positional, &n, &err);
    if (rc > 0)
        return 0;
    if (rc == 0 && (n != 2 || (strcmp(positional[0], "new") && strcmp(positional[0], "show"))))
        rc = err_set(&err, ERR_USAGE, "say new FILE or show FILE; see sigmoe keys --help");
    if (rc == 0)
        rc = positional[0][0] == 'n' ? make(positional[1], &err) : show(positional[1], &err);
    if (rc)
        fprintf(stderr, "sigmoe keys: %s\n", err.text);
    return err_exit_code(rc);
}
