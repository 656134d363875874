#include "base/err.h"
/* mistakes: this comment comes too late. */
