/* mistakes: a worker does not know the coordinator; what is missing belongs in an issue. */
#include "coordinator/pool.h"
#include "proto/msg.h"
/* TODO: this. */
