/* The trusted application: it holds one part, whose weights and inputs are in clear here and nowhere else. */
#include <string.h>
#include <tee_internal_api.h>

#include "channel.h"
#include "part.h"
#include "unseal.h"

enum command { HELLO = 0, CALL = 1 };
enum operation { LOAD = 1, RUN = 2, EVIDENCE = 3 };
enum status { DONE = 0, REFUSED_SEAL = 1, REFUSED_FORMAT = 2, REFUSED_REQUEST = 3 };

/* A request as it is decrypted. `hash` is the context's for LOAD, and the nonce for EVIDENCE. */
struct request {
    uint8_t operation, unused[7], hash[HASH_BYTES], key[KEY_BYTES];
};

struct session {
    struct channel channel;
    bool is_open, is_loaded;
};

/* One instance of the application serves one session. */
static struct session session;

TEE_Result TA_CreateEntryPoint(void)
{
    return TEE_SUCCESS;
}

void TA_DestroyEntryPoint(void)
{
}

TEE_Result TA_OpenSessionEntryPoint(uint32_t types, TEE_Param params[TEE_NUM_PARAMS], void **context)
{
    (void)types, (void)params, (void)context;
    return TEE_SUCCESS;
}

void TA_CloseSessionEntryPoint(void *context)
{
    (void)context;
    channel_close(&session.channel);
    memset(part_weights_block, 0, part_plain_bytes);
}

/* Move a block through records, each with its tag. */
static TEE_Result receive_block(const uint8_t *from, uint8_t *to, size_t size)
{
    TEE_Result result = TEE_SUCCESS;

    for (size_t at = 0; at < size && result == TEE_SUCCESS; at += RECORD_BYTES, from += RECORD_BYTES + TAG_BYTES) {
        const size_t piece = size - at < RECORD_BYTES ? size - at : RECORD_BYTES;

        result = channel_receive(&session.channel, PAYLOAD, from, piece, to + at);
    }
    return result;
}

static TEE_Result send_block(const uint8_t *from, uint8_t *to, size_t size)
{
    TEE_Result result = TEE_SUCCESS;

    for (size_t at = 0; at < size && result == TEE_SUCCESS; at += RECORD_BYTES, to += RECORD_BYTES + TAG_BYTES) {
        const size_t piece = size - at < RECORD_BYTES ? size - at : RECORD_BYTES;

        result = channel_send(&session.channel, PAYLOAD, from + at, piece, to);
    }
    return result;
}

static size_t sealed_size(size_t size)
{
    return size + (size + RECORD_BYTES - 1) / RECORD_BYTES * TAG_BYTES;
}

/* Answer a request. `block` and `block_size` become what goes back with the status. */
static TEE_Result answer(const struct request *request, const uint8_t *payload, size_t size, uint8_t *report,
                         enum status *status, const uint8_t **block, size_t *block_size)
{
    TEE_Result result = TEE_SUCCESS;

    *status = DONE;
    *block_size = 0;
    switch (request->operation) {
    case LOAD:
        result = unseal_weights(payload, size, request->key, request->hash, session.channel.staging,
                                sizeof(session.channel.staging));
        session.is_loaded = result == TEE_SUCCESS;
        if (result == TEE_ERROR_MAC_INVALID || result == TEE_ERROR_BAD_FORMAT) {
            *status = result == TEE_ERROR_MAC_INVALID ? REFUSED_SEAL : REFUSED_FORMAT;
            result = TEE_SUCCESS;
        }
        return result;
    case RUN:
        if (!session.is_loaded || size != sealed_size(part_input_bytes)) {
            *status = REFUSED_REQUEST;
            return TEE_SUCCESS;
        }
        result = receive_block(payload, part_input_block, part_input_bytes);
        if (result == TEE_SUCCESS)
            part_run(part_weights_block, part_input_block, part_output_block, part_arena_block);
        *block = part_output_block;
        *block_size = part_output_bytes;
        return result;
    case EVIDENCE:
        *block = report;
        *block_size = REPORT_BYTES;
        return channel_report(&session.channel, request->hash, report);
    default:
        *status = REFUSED_REQUEST;
        return TEE_SUCCESS;
    }
}

static TEE_Result call(const uint8_t *in, size_t in_size, uint8_t *out, size_t *out_size)
{
    uint8_t report[REPORT_BYTES], head[8] = {0};
    const size_t request_size = sizeof(struct request) + TAG_BYTES, head_size = sizeof(head) + TAG_BYTES;
    struct request request;
    enum status status = DONE;
    const uint8_t *block = NULL;
    size_t block_size = 0;
    TEE_Result result = TEE_ERROR_BAD_FORMAT;

    if (in_size < request_size)
        return result;
    result = channel_receive(&session.channel, CONTROL, in, sizeof(request), &request);
    if (result == TEE_SUCCESS)
        result = answer(&request, in + request_size, in_size - request_size, report, &status, &block, &block_size);
    TEE_MemFill(&request, 0, sizeof(request));
    if (result == TEE_SUCCESS && *out_size < head_size + sealed_size(block_size))
        result = TEE_ERROR_EXCESS_DATA;
    if (result != TEE_SUCCESS)
        return result;
    head[0] = status;
    *out_size = head_size + sealed_size(block_size);
    result = channel_send(&session.channel, CONTROL, head, sizeof(head), out);
    if (result == TEE_SUCCESS)
        result = send_block(block, out + head_size, block_size);
    return result;
}

TEE_Result TA_InvokeCommandEntryPoint(void *context, uint32_t command, uint32_t types,
                                      TEE_Param params[TEE_NUM_PARAMS])
{
    uint8_t hello[HELLO_BYTES], report[REPORT_BYTES];
    TEE_Result result = TEE_ERROR_BAD_STATE;

    (void)context;
    if (types != TEE_PARAM_TYPES(TEE_PARAM_TYPE_MEMREF_INPUT, TEE_PARAM_TYPE_MEMREF_OUTPUT, TEE_PARAM_TYPE_NONE,
                                 TEE_PARAM_TYPE_NONE))
        return TEE_ERROR_BAD_PARAMETERS;
    if (command == HELLO && session.channel.to_enclave.operation == TEE_HANDLE_NULL) {
        if (params[0].memref.size != HELLO_BYTES || params[1].memref.size < REPORT_BYTES)
            return TEE_ERROR_BAD_FORMAT;
        memcpy(hello, params[0].memref.buffer, sizeof(hello));
        result = channel_open(&session.channel, hello, report);
        session.is_open = result == TEE_SUCCESS;
        if (session.is_open)
            memcpy(params[1].memref.buffer, report, sizeof(report));
        params[1].memref.size = sizeof(report);
    } else if (command == CALL && session.is_open) {
        result = call(params[0].memref.buffer, params[0].memref.size, params[1].memref.buffer, &params[1].memref.size);
        /* After a record that does not authenticate, what comes next could not be told apart. */
        session.is_open = result == TEE_SUCCESS;
    }
    return result;
}
