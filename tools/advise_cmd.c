/* advise_cmd: `sigmoe plan --advise`, with options of its own: what is asked is how many machines
 * of which kind a load needs, not where experts lie on machines that are there. */
#include "tools/advise.h"
#include "tools/shapes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct options {
    const char *model, *trace, *precision;
    int asked, json;
    struct advise_ask ask;
};

static const char about[] =
    "Says how many workers of which kind carry a load, whether to keep experts on machines of "
    "their\n"
    "own, whether two micro-batches pay, and how many copies of experts, with the figures behind "
    "each\n"
    "sentence. Found by simulating the load (docs/LOADTEST.md) on costs from sigmoe calibrate or "
    "named\n"
    "hardware.\n"
    "\n"
    "  sigmoe plan --advise --model qwen3-30b-a3b --calibration host.json --rate 4 --slo-tpot 80\n"
    "  sigmoe plan --advise --model ./olmoe --loads chat.routes --rate 10 \\\n"
    "      --calibration small.json,big.json";

static int parse(int argc, char **argv, struct options *o, struct err *err)
{
    *o = (struct options){.precision = "bf16"};
    struct opt opts[ADVISE_OPTIONS + 8] = {
        {"advise", 0, OPT_FLAG, &o->asked, NULL, "this page's question", 0, 0},
        {"model", 'm', OPT_STR, &o->model, "MODEL",
         "folder of a checkpoint, config.json, or a shape's name", 0, 0},
        {"loads", 'l', OPT_STR, &o->trace, "FILE",
         "recorded routes (docs/TRACE.md); without them, Zipf(1.0)", 0, 0},
        {"precision", 0, OPT_STR, &o->precision, "P", "bf16 (default) or f32", 0, 0},
        {"json", 0, OPT_FLAG, &o->json, NULL, "print JSON", 0, 0},
    };
    int n = 0, n_pos = 0;
    while (opts[n].name)
        n++;
    advise_options(&o->ask, opts + n);
    const struct opt_command cmd = {
        "plan --advise", "sigmoe plan --advise --model MODEL --rate R [options]", about, opts};
    int rc = opt_parse(&cmd, argc, argv, NULL, &n_pos, err);
    if (rc == 0 && !o->model)
        rc = err_set(err, ERR_USAGE, "which model? sigmoe plan --advise --model MODEL");
    if (rc == 0 && strcmp(o->precision, "bf16") != 0 && strcmp(o->precision, "f32") != 0)
        rc =
            err_set(err, ERR_USAGE, "--precision must be bf16 or f32, it is '%.20s'", o->precision);
    return rc;
}

static int model_read(const char *what, struct model_desc *desc, struct err *err)
{
    struct stat st;
    char *text;
    if (stat(what, &st) == 0 && S_ISDIR(st.st_mode))
        return desc_load(what, desc, err);
    int rc = shape_or_file(what, &text, err);
    if (rc)
        return rc;
    rc = desc_from_config(text, strlen(text), what, desc, err);
    free(text);
    return rc;
}

int plan_advise_asked(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--advise") == 0)
            return 1;
    return 0;
}

int plan_advise(int argc, char **argv)
{
    struct options o;
    struct err err = {0};
    json_t *advice = NULL;
    struct model_desc *desc = calloc(1, sizeof(*desc));
    int rc = desc ? parse(argc, argv, &o, &err) : err_set(&err, ERR_NOMEM, "no memory for a model");
    if (rc == 0)
        rc = model_read(o.model, desc, &err);
    if (rc == 0)
        rc = advise(&o.ask, desc, strcmp(o.precision, "f32") ? PRECISION_BF16 : PRECISION_F32,
                    o.trace, &advice, &err);
    free(desc);
    if (rc == 1)
        return 0;
    if (rc == 0 && o.json) {
        json_dumpf(advice, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
        putchar('\n');
    } else if (rc == 0) {
        advise_print(advice, stdout);
    } else {
        fprintf(stderr, "sigmoe plan: %s\n", err.text);
    }
    json_decref(advice);
    return err_exit_code(rc);
}
