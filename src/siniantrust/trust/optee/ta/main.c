/* The trusted application: it holds one part, whose weights and inputs are in clear here and nowhere else. */
#include <string.h>
#include <tee_internal_api.h>

#include "channel.h"
#include "noise.h"
#include "part.h"
#include "seal.h"
#include "unseal.h"

enum command { HELLO = 0, CALL = 1 };
enum status { DONE = 0, REFUSED_SEAL = 1, REFUSED_FORMAT = 2, REFUSED_REQUEST = 3 };

/* A part's tensors go in and out in pieces, each at its offset: shared memory is short. */
enum operation {
    LOAD = 1,     /* start with weights: `hash` is the context's; with the seal's head and tag in clear */
    WEIGHTS = 2,  /* the next piece of the sealed weights, in clear */
    INPUT = 3,    /* a piece of the inputs */
    RUN = 4,      /* the last piece of the inputs, and compute; the first piece of the outputs comes back */
    OUTPUT = 5,   /* another piece of the outputs */
    EVIDENCE = 6, /* `hash` is the nonce */
    SEAL = 7,     /* data of `offset` bytes; `hash` is the context's, `key` the hash of where they are sealed */
    UNSEAL = 8,   /* the sealed form of them, as above */
};

#define PIECE_BYTES (8 * RECORD_BYTES)

/* A request as it is decrypted; the normal world is little-endian, as this one is. */
struct request {
    uint32_t operation, offset;
    uint8_t hash[HASH_BYTES], key[KEY_BYTES];
};

struct session {
    struct channel channel;
    bool is_open, is_loaded, has_output;
};

/* One instance of the application serves one session. */
static struct session session;

/* Data that are sealed or opened, and their other form, until they are answered. */
static uint8_t given_form[SEAL_MOST_BYTES + SEAL_OVERHEAD_BYTES], other_form[SEAL_MOST_BYTES + SEAL_OVERHEAD_BYTES];

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

static void forget_forms(void)
{
    TEE_MemFill(given_form, 0, sizeof(given_form));
    TEE_MemFill(other_form, 0, sizeof(other_form));
}

void TA_CloseSessionEntryPoint(void *context)
{
    (void)context;
    channel_close(&session.channel);
    noise_close();
    TEE_MemFill(part_weights_block, 0, part_plain_bytes);
    TEE_MemFill(part_input_block, 0, part_input_bytes);
    TEE_MemFill(part_output_block, 0, part_output_bytes);
    TEE_MemFill(part_arena_block, 0, part_arena_bytes);
    forget_forms();
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

struct block {
    const uint8_t *at;
    size_t size;
};

/* Decrypt a piece of the inputs into its place. */
static TEE_Result take_input(const struct request *request, const uint8_t *payload, size_t size, enum status *status)
{
    size_t room = 0;

    if (session.is_loaded && request->offset <= part_given_bytes)
        room = part_given_bytes - request->offset;
    room = room < PIECE_BYTES ? room : PIECE_BYTES;
    if (!session.is_loaded || size != sealed_size(room)) {
        *status = REFUSED_REQUEST;
        return TEE_SUCCESS;
    }
    return receive_block(payload, part_input_block + request->offset, room);
}

static struct block output_piece(size_t offset)
{
    struct block piece = {part_output_block + offset, 0};

    if (offset <= part_output_bytes)
        piece.size = part_output_bytes - offset;
    piece.size = piece.size < PIECE_BYTES ? piece.size : PIECE_BYTES;
    return piece;
}

/* A seal that does not open is answered; it does not end the session. */
static TEE_Result seal_status(TEE_Result result, enum status *status)
{
    if (result != TEE_ERROR_MAC_INVALID && result != TEE_ERROR_BAD_FORMAT)
        return result;
    *status = result == TEE_ERROR_MAC_INVALID ? REFUSED_SEAL : REFUSED_FORMAT;
    return TEE_SUCCESS;
}

/* Seal data, or open what was sealed; what comes back is the other form. */
static TEE_Result seal_or_open(const struct request *request, const uint8_t *payload, size_t size,
                               enum status *status, struct block *back)
{
    const bool seals = request->operation == SEAL;
    const size_t given = request->offset, least = seals ? 0 : SEAL_OVERHEAD_BYTES;
    TEE_Result result = TEE_SUCCESS;

    if (given < least || given > least + SEAL_MOST_BYTES || size != sealed_size(given)) {
        *status = REFUSED_REQUEST;
        return result;
    }
    result = receive_block(payload, given_form, given);
    if (result != TEE_SUCCESS)
        return result;
    if (seals)
        result = seal_data(given_form, given, other_form, request->hash, request->key);
    else
        result = seal_status(open_data(given_form, given, other_form, request->hash, request->key), status);
    if (result == TEE_SUCCESS && *status == DONE) {
        back->at = other_form;
        back->size = seals ? given + SEAL_OVERHEAD_BYTES : given - SEAL_OVERHEAD_BYTES;
    }
    return result;
}

/* Answer a request. `back` becomes what goes back with the status. */
static TEE_Result answer(const struct request *request, const uint8_t *payload, size_t size, uint8_t *report,
                         enum status *status, struct block *back)
{
    TEE_Result result = TEE_SUCCESS;

    switch (request->operation) {
    case LOAD:
        session.is_loaded = false;
        if (size != SEAL_HEAD_BYTES + TAG_BYTES)
            break;
        return seal_status(unseal_start(payload, request->key, request->hash), status);
    case WEIGHTS:
        return seal_status(unseal_feed(payload, size, session.channel.staging, sizeof(session.channel.staging),
                                       &session.is_loaded),
                           status);
    case INPUT:
        return take_input(request, payload, size, status);
    case RUN:
        result = take_input(request, payload, size, status);
        if (result == TEE_SUCCESS && *status == DONE)
            result = noise_draw();
        if (result == TEE_SUCCESS && *status == DONE) {
            part_run(part_weights_block, part_input_block, part_output_block, part_arena_block);
            session.has_output = true;
            *back = output_piece(0);
        }
        return result;
    case OUTPUT:
        if (!session.has_output)
            break;
        *back = output_piece(request->offset);
        return TEE_SUCCESS;
    case EVIDENCE:
        back->at = report;
        back->size = REPORT_BYTES;
        return channel_report(&session.channel, request->hash, report);
    case SEAL:
    case UNSEAL:
        return seal_or_open(request, payload, size, status, back);
    default:
        break;
    }
    *status = REFUSED_REQUEST;
    return TEE_SUCCESS;
}

static TEE_Result call(const uint8_t *in, size_t in_size, uint8_t *out, size_t *out_size)
{
    uint8_t report[REPORT_BYTES], head[8] = {0};
    const size_t request_size = sizeof(struct request) + TAG_BYTES, head_size = sizeof(head) + TAG_BYTES;
    struct request request;
    enum status status = DONE;
    struct block back = {NULL, 0};
    TEE_Result result = TEE_ERROR_BAD_FORMAT;

    if (in_size < request_size)
        return result;
    result = channel_receive(&session.channel, CONTROL, in, sizeof(request), &request);
    if (result == TEE_SUCCESS)
        result = answer(&request, in + request_size, in_size - request_size, report, &status, &back);
    TEE_MemFill(&request, 0, sizeof(request));
    if (result == TEE_SUCCESS && *out_size < head_size + sealed_size(back.size))
        result = TEE_ERROR_EXCESS_DATA;
    if (result == TEE_SUCCESS) {
        head[0] = status;
        *out_size = head_size + sealed_size(back.size);
        result = channel_send(&session.channel, CONTROL, head, sizeof(head), out);
    }
    if (result == TEE_SUCCESS)
        result = send_block(back.at, out + head_size, back.size);
    forget_forms();
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
