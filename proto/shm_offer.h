/* shm_offer: what Welcome says of memory to be shared (proto/shm.h): where the door is and what to
 * show there. */
#ifndef PROTO_SHM_OFFER_H
#define PROTO_SHM_OFFER_H

#include <stdint.h>

#define SHM_NAME_BYTES  64 /* with the terminating 0 */
#define SHM_TOKEN_BYTES 16

struct shm_offer {
    char name[SHM_NAME_BYTES]; /* "": nothing is offered */
    uint8_t token[SHM_TOKEN_BYTES];
};

#endif
