#include "noise.h"

#include <string.h>

#include "channel.h"
#include "part.h"

#define STREAM_BYTES 4096

/* AES-256 in counter mode under a key that is drawn here and never leaves, as in the other enclaves. */
static struct {
    TEE_OperationHandle operation;
    uint8_t bytes[STREAM_BYTES];
    size_t used;
    TEE_Result result;
} stream = {.used = STREAM_BYTES};

static TEE_Result start(void)
{
    uint8_t key[KEY_BYTES], counter[16] = {0};
    TEE_Result result = TEE_SUCCESS;

    TEE_GenerateRandom(key, sizeof(key));
    result = counter_operation(key, &stream.operation);
    TEE_MemFill(key, 0, sizeof(key));
    if (result == TEE_SUCCESS)
        TEE_CipherInit(stream.operation, counter, sizeof(counter));
    return result;
}

static void refill(void)
{
    static const uint8_t zeros[STREAM_BYTES];
    size_t size = STREAM_BYTES;

    if (stream.operation == TEE_HANDLE_NULL)
        stream.result = start();
    if (stream.result == TEE_SUCCESS)
        stream.result = TEE_CipherUpdate(stream.operation, zeros, sizeof(zeros), stream.bytes, &size);
    if (stream.result == TEE_SUCCESS && size != STREAM_BYTES)
        stream.result = TEE_ERROR_GENERIC;
    stream.used = 0;
}

/* What is no random word after an error ends every loop, too; that there was one is seen at the end. */
static uint64_t random_word(void)
{
    uint64_t word = 0;

    if (stream.used == STREAM_BYTES)
        refill();
    if (stream.result == TEE_SUCCESS) {
        memcpy(&word, stream.bytes + stream.used, sizeof(word));
        TEE_MemFill(stream.bytes + stream.used, 0, sizeof(word));
        stream.used += sizeof(word);
    }
    return word;
}

#include "laws.h"

TEE_Result noise_draw(void)
{
    for (uint32_t i = 0; i < part_noise_count; i++) {
        const struct part_noise *noise = &part_noise[i];

        fill((float *)(part_input_block + noise->offset), noise->count, (enum law)noise->law, noise->shift,
             noise->factor);
    }
    return stream.result;
}

void noise_close(void)
{
    if (stream.operation != TEE_HANDLE_NULL)
        TEE_FreeOperation(stream.operation);
    TEE_MemFill(&stream, 0, sizeof(stream));
    stream.used = STREAM_BYTES;
}
