#include "unseal.h"

#include <string.h>

#include "channel.h"
#include "part.h"

#define MAGIC "SNSEAL\0\1"

static struct {
    TEE_OperationHandle operation;
    uint8_t tag[TAG_BYTES];
    size_t received, written;
} progress;

static TEE_Result stop(TEE_Result result)
{
    TEE_FreeOperation(progress.operation);
    progress.operation = TEE_HANDLE_NULL;
    if (result != TEE_SUCCESS)
        memset(part_weights_block, 0, part_plain_bytes);
    return result;
}

TEE_Result unseal_start(const uint8_t *head_and_tag, const uint8_t *key, const uint8_t *context_sha256)
{
    uint8_t head[SEAL_HEAD_BYTES];
    TEE_Result result = TEE_ERROR_MAC_INVALID;

    stop(result);
    progress.received = progress.written = 0;
    memcpy(head, head_and_tag, sizeof(head));
    memcpy(progress.tag, head_and_tag + sizeof(head), TAG_BYTES);
    if (memcmp(head, MAGIC, 8) != 0)
        return result;
    result = gcm_operation(key, TEE_MODE_DECRYPT, &progress.operation);
    if (result == TEE_SUCCESS)
        result = TEE_AEInit(progress.operation, head + 8, 12, TAG_BYTES * 8, 0, 0);
    if (result != TEE_SUCCESS)
        return stop(result);
    TEE_AEUpdateAAD(progress.operation, MAGIC, 8);
    TEE_AEUpdateAAD(progress.operation, context_sha256, HASH_BYTES);
    TEE_AEUpdateAAD(progress.operation, part_skeleton_sha256, HASH_BYTES);
    return TEE_SUCCESS;
}

/* A stretch of a protobuf message; https://protobuf.dev/programming-guides/encoding */
struct stretch {
    const uint8_t *at, *end;
};

struct field {
    uint32_t number, type;
    uint64_t value; /* of a number */
    struct stretch bytes;
};

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };
enum { MODEL_GRAPH = 7, GRAPH_INITIALIZER = 5, TENSOR_DATA_TYPE = 2, TENSOR_NAME = 8, TENSOR_RAW_DATA = 9 };

static bool varint(struct stretch *in, uint64_t *value)
{
    *value = 0;
    for (uint32_t shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        const uint8_t byte = *in->at++;

        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool next_field(struct stretch *in, struct field *field)
{
    uint64_t tag = 0, length = 0;

    if (!varint(in, &tag))
        return false;
    field->number = (uint32_t)(tag >> 3);
    field->type = tag & 7;
    switch (field->type) {
    case VARINT:
        return varint(in, &field->value);
    case LENGTH:
        if (!varint(in, &length))
            return false;
        break;
    case FIXED64:
        length = 8;
        break;
    case FIXED32:
        length = 4;
        break;
    default:
        return false;
    }
    if (length > (uint64_t)(in->end - in->at))
        return false;
    field->bytes.at = in->at;
    field->bytes.end = in->at += length;
    return true;
}

/* Move one tensor to the place of the next weight, if it is that one; others are not read by the part. */
static bool take_tensor(struct stretch tensor, uint32_t *next)
{
    const struct part_weight *weight = &part_weights[*next];
    struct stretch name = {0}, raw = {0};
    struct field field = {0};
    uint64_t type = 0;
    size_t size = 0;

    while (tensor.at < tensor.end) {
        if (!next_field(&tensor, &field))
            return false;
        if (field.number == TENSOR_DATA_TYPE && field.type == VARINT)
            type = field.value;
        else if (field.number == TENSOR_NAME && field.type == LENGTH)
            name = field.bytes;
        else if (field.number == TENSOR_RAW_DATA && field.type == LENGTH)
            raw = field.bytes;
    }
    size = name.end - name.at;
    if (*next == part_weights_count || size != strlen(weight->name) || memcmp(name.at, weight->name, size) != 0)
        return true;
    /* Places are in the order of the tensors, so that a move to the front overwrites only what was read already. */
    if (type != weight->onnx_type || (size_t)(raw.end - raw.at) != weight->size ||
        part_weights_block + weight->offset > raw.at)
        return false;
    memmove(part_weights_block + weight->offset, raw.at, weight->size);
    (*next)++;
    return true;
}

static bool place_weights(void)
{
    struct stretch model = {part_weights_block, part_weights_block + part_plain_bytes};
    struct field graph = {0}, tensor = {0};
    uint32_t next = 0;

    while (model.at < model.end) {
        if (!next_field(&model, &graph))
            return false;
        if (graph.number != MODEL_GRAPH || graph.type != LENGTH)
            continue;
        while (graph.bytes.at < graph.bytes.end) {
            if (!next_field(&graph.bytes, &tensor))
                return false;
            if (tensor.number == GRAPH_INITIALIZER && tensor.type == LENGTH && !take_tensor(tensor.bytes, &next))
                return false;
        }
    }
    return next == part_weights_count;
}

TEE_Result unseal_feed(const uint8_t *sealed, size_t size, uint8_t *staging, size_t staging_size, bool *is_complete)
{
    size_t room = 0;
    TEE_Result result = TEE_SUCCESS;

    *is_complete = false;
    if (!progress.operation || size > part_plain_bytes - progress.received)
        return stop(TEE_ERROR_MAC_INVALID);
    progress.received += size;
    while (result == TEE_SUCCESS && size) {
        const size_t piece = size < staging_size ? size : staging_size;

        memcpy(staging, sealed, piece);
        room = part_plain_bytes - progress.written;
        result = TEE_AEUpdate(progress.operation, staging, piece, part_weights_block + progress.written, &room);
        progress.written += room;
        sealed += piece;
        size -= piece;
    }
    if (result != TEE_SUCCESS)
        return stop(result);
    if (progress.received < part_plain_bytes)
        return TEE_SUCCESS;
    room = part_plain_bytes - progress.written;
    result = TEE_AEDecryptFinal(progress.operation, NULL, 0, part_weights_block + progress.written, &room,
                                progress.tag, TAG_BYTES);
    if (result == TEE_SUCCESS && !place_weights())
        result = TEE_ERROR_BAD_FORMAT;
    *is_complete = result == TEE_SUCCESS;
    return stop(result);
}
