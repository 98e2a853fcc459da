/* The encrypted channel's end inside the trusted application; siniantrust.trust._handshake and _cipher are the other. */
#ifndef SINIANTRUST_CHANNEL_H
#define SINIANTRUST_CHANNEL_H

#include <tee_internal_api.h>

#define KEY_BYTES 32
#define TAG_BYTES 16
#define NONCE_BYTES 32
#define HASH_BYTES 32
/* Plain bytes of the longest record: what is decrypted lies in private memory, so that this memory is lost to parts. */
#define RECORD_BYTES (32 * 1024)

/* The first message: magic, nonce, client's public key. */
#define HELLO_MAGIC "SINIAN-ENCLAVE-1"
#define HELLO_BYTES (16 + NONCE_BYTES + KEY_BYTES)
/* What answers it: magic, this session's public key, SHA-256(nonce, this key, client's key). */
#define REPORT_MAGIC "SINIAN-OP-TEE-01"
#define REPORT_BYTES (16 + KEY_BYTES + HASH_BYTES)

enum direction { TO_ENCLAVE = 1, TO_CLIENT = 2 };
enum kind { CONTROL = 1, PAYLOAD = 2 };

struct cipher {
    TEE_OperationHandle operation;
    uint64_t counter;
};

struct channel {
    uint8_t session_id[16], public_key[KEY_BYTES], client_key[KEY_BYTES];
    struct cipher to_enclave, to_client;
    /* A record is copied here before it is authenticated: the normal world may change its memory at any moment. */
    uint8_t staging[RECORD_BYTES + TAG_BYTES];
};

/* All of them return TEE_SUCCESS or an error after which the session must end. */
TEE_Result channel_open(struct channel *channel, const uint8_t *hello, uint8_t *report);
TEE_Result channel_report(const struct channel *channel, const uint8_t *nonce, uint8_t *report);
TEE_Result channel_receive(struct channel *channel, enum kind kind, const uint8_t *sealed, size_t size, void *plain);
TEE_Result channel_send(struct channel *channel, enum kind kind, const void *plain, size_t size, uint8_t *sealed);
void channel_close(struct channel *channel);

/* Prepare AES-256-GCM under a key. */
TEE_Result gcm_operation(const uint8_t *key, uint32_t mode, TEE_OperationHandle *operation);
/* The same for AES-256 in counter mode. */
TEE_Result counter_operation(const uint8_t *key, TEE_OperationHandle *operation);

#endif
