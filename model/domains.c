/* domains: see domains.h. */
#include "model/domains.h"

#include "base/opt.h"
#include "model/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES (sizeof(((struct domain_desc *)0)->name) - 1)
/* Embedding rows of all slots: far above 2^18 tokens in 2^10 slots, and an int by a wide margin. */
#define EMBED_ROWS_MAX (1 << 29)

static int name_is_good(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    return n > 0 && n <= NAME_MAX_BYTES && name[n] == '\0' && name[0] != '_' && name[0] != '-' &&
           strcmp(name, "auto") != 0;
}

/* The list may hold anything: a reader of one entry's keys is a config of its own. */
static int domain_read(const struct model_desc *desc, const struct config *entry,
                       struct domain_desc *domain, struct err *err)
{
    const char *name;
    int n_expert, slot = 0;
    int rc = config_string_or(entry, "name", NULL, &name, err);
    if (rc)
        return rc;
    char quoted[JSON_QUOTE];
    if (!name || !name_is_good(name))
        return err_set(err, ERR_MODEL,
                       "%s: \"%sname\" is \"%s\"; a name is 1 to %zu of a-z, 0-9, '-' and '_', "
                       "begins with a letter or digit, and is not auto",
                       entry->path, entry->within, name ? json_quote(name, quoted) : "",
                       NAME_MAX_BYTES);
    rc = config_int(entry, "num_experts", desc->top_k, LIMIT_EXPERTS, &n_expert, err);
    if (rc == 0)
        rc = config_int_or(entry, "embedding_slot", 0, 0, desc->n_slot - 1, &slot, err);
    if (rc)
        return rc;
    *domain = (struct domain_desc){.n_expert = n_expert, .slot = slot};
    snprintf(domain->name, sizeof(domain->name), "%s", name);
    return 0;
}

static int list_read(struct model_desc *desc, const struct config *config, const json_t *list,
                     struct err *err)
{
    for (int i = 0; i < desc->n_domain; i++) {
        char within[32];
        snprintf(within, sizeof(within), "domains[%d].", i);
        struct config entry = {json_array_get(list, (size_t)i), config->path, within,
                               config->family};
        if (!json_is_object(entry.root))
            return err_set(err, ERR_MODEL, "%s: \"domains[%d]\" must be an object", config->path,
                           i);
        struct domain_desc *domain = &desc->domain[i];
        int rc = domain_read(desc, &entry, domain, err);
        if (rc)
            return rc;
        for (int k = 0; k < i; k++)
            if (strcmp(desc->domain[k].name, domain->name) == 0)
                return err_set(err, ERR_MODEL, "%s: two domains are named \"%s\"", config->path,
                               domain->name);
        domain->first = desc->n_expert;
        desc->n_expert += domain->n_expert;
        if (desc->n_expert > LIMIT_EXPERTS)
            return err_set(err, ERR_MODEL,
                           "%s: the groups of the first %d domains have %d experts together; at "
                           "most %d are possible",
                           config->path, i + 1, desc->n_expert, LIMIT_EXPERTS);
    }
    return 0;
}

int domains_read(struct model_desc *desc, const struct config *config, struct err *err)
{
    const json_t *list = json_object_get(config->root, "domains");
    size_t n = json_array_size(list); /* 0 for what is no list */
    if (n < 1 || n > LIMIT_DOMAINS)
        return err_set(err, ERR_MODEL,
                       "%s: \"domains\" must be a list of 1 to %d objects {\"name\", "
                       "\"num_experts\", \"embedding_slot\"}",
                       config->path, LIMIT_DOMAINS);
    desc->n_domain = (int)n;
    desc->n_expert = 0;
    int most = EMBED_ROWS_MAX / desc->vocab;
    int rc = config_int_or(config, "num_embedding_slots", 1, 1,
                           most < LIMIT_DOMAINS ? most : LIMIT_DOMAINS, &desc->n_slot, err);
    if (rc == 0)
        rc = list_read(desc, config, list, err);
    const char *first = NULL;
    if (rc == 0)
        rc = config_string_or(config, "default_domain", desc->domain[0].name, &first, err);
    if (rc)
        return rc;
    struct err why = {0};
    int found = desc_domain_find(desc, first, &why);
    if (found < 0)
        return err_set(err, ERR_MODEL, "%s: \"default_domain\": %s", config->path, why.text);
    desc->default_domain = found;
    return 0;
}

/* ---- looking up ------------------------------------------------------------------------------ */

/* names_text: as many of the names as fit, then how many more there are. */
static void names_text(const struct model_desc *desc, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < desc->n_domain; i++) {
        const char *name = desc->domain[i].name;
        if (used + strlen(name) + 32 > size) {
            snprintf(out + used, size - used, " and %d more", desc->n_domain - i);
            return;
        }
        used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", name);
    }
}

int desc_domain_find(const struct model_desc *desc, const char *name, struct err *err)
{
    char names[512], quoted[JSON_QUOTE];
    if (desc->n_domain == 0)
        return err_set(err, ERR_USAGE, "there is no domain '%s': %s models have none",
                       json_quote(name, quoted), desc->family);
    for (int i = 0; i < desc->n_domain; i++)
        if (strcmp(desc->domain[i].name, name) == 0)
            return i;
    const char *list[LIMIT_DOMAINS + 1] = {0};
    for (int i = 0; i < desc->n_domain; i++)
        list[i] = desc->domain[i].name;
    const char *near = opt_nearest(name, list);
    names_text(desc, names, sizeof(names));
    json_quote(name, quoted);
    if (near)
        return err_set(err, ERR_USAGE, "there is no domain '%s'; did you mean '%s'? Domains are %s",
                       quoted, near, names);
    return err_set(err, ERR_USAGE, "there is no domain '%s'; domains are %s", quoted, names);
}

int desc_domain_read(const struct model_desc *desc, const char *text, int *domain, struct err *err)
{
    if (desc->n_domain > 0 && strcmp(text, "auto") == 0) {
        *domain = DOMAIN_AUTO;
        return 0;
    }
    int found = desc_domain_find(desc, text, err);
    if (found < 0)
        return found;
    *domain = found;
    return 0;
}

int desc_expert_domain(const struct model_desc *desc, int expert)
{
    int low = 0, high = desc->n_domain;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (desc->domain[middle].first <= expert)
            low = middle;
        else
            high = middle;
    }
    return desc->n_domain > 0 ? low : -1;
}
