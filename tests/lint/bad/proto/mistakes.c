/* mistakes: proto and kernels do not know each other; proto may include what protobuf-c made. */
#include "kernels/kernels.h"
#include "proto/sigmoe.pb-c.h"
