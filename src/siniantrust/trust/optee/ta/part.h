/* What the trusted application knows of its part. The definitions are generated, one file for each part. */
#ifndef SINIANTRUST_PART_H
#define SINIANTRUST_PART_H

#include <stdint.h>

/* A weight that the part reads: its place in the serialised ONNX model is found by its name, in this order. */
struct part_weight {
    const char *name;
    uint32_t onnx_type, offset, size;
};

/* An input of noise: a law of laws.h, and where its numbers lie in the inputs' block. */
struct part_noise {
    uint32_t law, offset, count;
    double shift, factor;
};

/* Four blocks, and the SHA-256 of the skeleton that the part was generated from. The weights' block is as large as the
 * ONNX model that they are sealed in, since that is decrypted there. */
extern const struct part_weight part_weights[];
extern const uint32_t part_weights_count, part_plain_bytes, part_input_bytes, part_output_bytes, part_arena_bytes;
/* Inputs of noise lie behind those that are given. */
extern const struct part_noise part_noise[];
extern const uint32_t part_noise_count, part_given_bytes;
extern const uint8_t part_skeleton_sha256[32];
extern uint8_t part_weights_block[], part_input_block[], part_output_block[], part_arena_block[];

void part_run(const void *weights, const void *input, void *output, void *arena);

#endif
