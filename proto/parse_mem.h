/* parse_mem: the memory one header may unpack into, allotted before a byte is looked at. protobuf-c
 * allocates as the bytes tell it to (an empty submessage of 2 bytes becomes a struct, an unknown
 * field a record of its own), so a peer could turn 1 MiB into many; here it runs out instead, and
 * the message is refused. One malloc and one free a message. */
#ifndef PROTO_PARSE_MEM_H
#define PROTO_PARSE_MEM_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

struct parse_mem;
/* parse_mem_create: a budget that fits every message of docs/WIRE.md of `header_bytes` bytes:
 * packed lists grow four times when unpacked (one byte becomes a uint32). NULL when memory is out.
 */
struct parse_mem *parse_mem_create(size_t header_bytes);
void parse_mem_destroy(struct parse_mem *mem);
/* parse_mem_allocator: what protobuf-c unpacks with; frees nothing before parse_mem_destroy. */
ProtobufCAllocator *parse_mem_allocator(struct parse_mem *mem);

#endif
