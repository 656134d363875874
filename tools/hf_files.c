/* hf_files: see hf_files.h. */
#include "tools/hf_files.h"

extern const unsigned char hf_configuration[], hf_modeling[];
extern const size_t hf_configuration_bytes, hf_modeling_bytes;

int hf_files_copy(struct copy *c)
{
    int rc = ck_writer_file(c->writer, "configuration_pangu_sigma.py", hf_configuration,
                            hf_configuration_bytes, c->err);
    return rc ? rc
              : ck_writer_file(c->writer, "modeling_pangu_sigma.py", hf_modeling, hf_modeling_bytes,
                               c->err);
}

void hf_files_name(json_t *config)
{
    json_object_set_new(config, "model_type", json_string("pangu_sigma"));
    json_object_set_new(config, "architectures", json_pack("[s]", "PanguSigmaForCausalLM"));
    json_object_set_new(
        config, "auto_map",
        json_pack("{s:s, s:s}", "AutoConfig", "configuration_pangu_sigma.PanguSigmaConfig",
                  "AutoModelForCausalLM", "modeling_pangu_sigma.PanguSigmaForCausalLM"));
}
