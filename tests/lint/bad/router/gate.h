/* gate: the one exception of the include rule stays allowed. */
#include "model/desc.h"
