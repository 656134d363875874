/* hf_files: the Python files of tools/hf, held in the program (tools/room.cmake), and what
 * config.json says of them, so that transformers loads a PanGu-Sigma checkpoint with
 * trust_remote_code. */
#ifndef TOOLS_HF_FILES_H
#define TOOLS_HF_FILES_H

#include "tools/copy.h"

/* hf_files_copy writes them beside the tensors. */
int hf_files_copy(struct copy *c);
/* hf_files_name sets "model_type", "architectures" and "auto_map". */
void hf_files_name(json_t *config);

#endif
