/* tokenize_main: `sigmoe tokenize` as a program of its own, so that the comparison with the
 * reference needs only the model room to build. */
#include "tools/commands.h"

int main(int argc, char **argv)
{
    return cmd_tokenize(argc, argv);
}
