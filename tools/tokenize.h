/* tokenize: text to token ids and back on the command line, to look at a vocabulary and to compare
 * it with other implementations (tests/suite/tokenizer/equal_hf.py). */
#ifndef TOOLS_TOKENIZE_H
#define TOOLS_TOKENIZE_H

int cmd_tokenize(int argc, char **argv);

#endif
