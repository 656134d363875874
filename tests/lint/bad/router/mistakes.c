/* mistakes: the router sees neither the network nor the model, except for one header of it. */
#include "model/weights.h"
#include "worker/worker.h"
#include <zmq.h>
