#include "channel.h"

#include <string.h>

#define KEY_BITS (KEY_BYTES * 8)
#define MAX_KEY_INFO_BYTES 64

static TEE_Result sha256(const void *const *pieces, const size_t *sizes, size_t count, uint8_t *hash)
{
    TEE_OperationHandle operation = TEE_HANDLE_NULL;
    size_t hash_size = HASH_BYTES;
    TEE_Result result = TEE_AllocateOperation(&operation, TEE_ALG_SHA256, TEE_MODE_DIGEST, 0);

    if (result != TEE_SUCCESS)
        return result;
    for (size_t i = 0; i < count; i++)
        TEE_DigestUpdate(operation, pieces[i], sizes[i]);
    result = TEE_DigestDoFinal(operation, NULL, 0, hash, &hash_size);
    TEE_FreeOperation(operation);
    return result;
}

/* Set up an operation with a key of its own. */
static TEE_Result keyed(uint32_t algorithm, uint32_t mode, uint32_t type, const uint8_t *key,
                        TEE_OperationHandle *operation)
{
    TEE_ObjectHandle object = TEE_HANDLE_NULL;
    TEE_Attribute attribute;
    TEE_Result result = TEE_AllocateTransientObject(type, KEY_BITS, &object);

    if (result != TEE_SUCCESS)
        return result;
    TEE_InitRefAttribute(&attribute, TEE_ATTR_SECRET_VALUE, (void *)key, KEY_BYTES);
    result = TEE_PopulateTransientObject(object, &attribute, 1);
    if (result == TEE_SUCCESS)
        result = TEE_AllocateOperation(operation, algorithm, mode, KEY_BITS);
    if (result == TEE_SUCCESS)
        result = TEE_SetOperationKey(*operation, object);
    TEE_FreeTransientObject(object);
    return result;
}

TEE_Result gcm_operation(const uint8_t *key, uint32_t mode, TEE_OperationHandle *operation)
{
    return keyed(TEE_ALG_AES_GCM, mode, TEE_TYPE_AES, key, operation);
}

TEE_Result counter_operation(const uint8_t *key, TEE_OperationHandle *operation)
{
    return keyed(TEE_ALG_AES_CTR, TEE_MODE_ENCRYPT, TEE_TYPE_AES, key, operation);
}

static TEE_Result hmac(const uint8_t *key, const void *data, size_t size, uint8_t *mac)
{
    TEE_OperationHandle operation = TEE_HANDLE_NULL;
    size_t mac_size = HASH_BYTES;
    TEE_Result result = keyed(TEE_ALG_HMAC_SHA256, TEE_MODE_MAC, TEE_TYPE_HMAC_SHA256, key, &operation);

    if (result == TEE_SUCCESS) {
        TEE_MACInit(operation, NULL, 0);
        result = TEE_MACComputeFinal(operation, data, size, mac, &mac_size);
    }
    TEE_FreeOperation(operation);
    return result;
}

/* HKDF-SHA256 (RFC 5869) for one block of output. */
static TEE_Result hkdf(const uint8_t *shared, const uint8_t *salt, const char *info, uint8_t *key)
{
    uint8_t pseudorandom[HASH_BYTES], block[MAX_KEY_INFO_BYTES];
    const size_t info_size = strlen(info);
    TEE_Result result = TEE_ERROR_GENERIC;

    if (info_size >= sizeof(block))
        return result;
    memcpy(block, info, info_size);
    block[info_size] = 1;
    result = hmac(salt, shared, KEY_BYTES, pseudorandom);
    if (result == TEE_SUCCESS)
        result = hmac(pseudorandom, block, info_size + 1, key);
    TEE_MemFill(pseudorandom, 0, sizeof(pseudorandom));
    return result;
}

static TEE_Result start_cipher(struct cipher *cipher, const uint8_t *shared, const uint8_t *transcript,
                               const char *info, uint32_t mode)
{
    uint8_t key[KEY_BYTES];
    TEE_Result result = hkdf(shared, transcript, info, key);

    if (result == TEE_SUCCESS)
        result = gcm_operation(key, mode, &cipher->operation);
    TEE_MemFill(key, 0, sizeof(key));
    return result;
}

/* Make an X25519 key for this session, and agree with the client's on a secret. */
static TEE_Result agree(struct channel *channel, uint8_t *shared)
{
    TEE_ObjectHandle pair = TEE_HANDLE_NULL, secret = TEE_HANDLE_NULL;
    TEE_OperationHandle operation = TEE_HANDLE_NULL;
    TEE_Attribute peer;
    size_t size = KEY_BYTES;
    TEE_Result result = TEE_AllocateTransientObject(TEE_TYPE_X25519_KEYPAIR, KEY_BITS, &pair);

    if (result == TEE_SUCCESS)
        result = TEE_AllocateTransientObject(TEE_TYPE_GENERIC_SECRET, KEY_BITS, &secret);
    if (result == TEE_SUCCESS)
        result = TEE_GenerateKey(pair, KEY_BITS, NULL, 0);
    if (result == TEE_SUCCESS)
        result = TEE_GetObjectBufferAttribute(pair, TEE_ATTR_X25519_PUBLIC_VALUE, channel->public_key, &size);
    if (result == TEE_SUCCESS)
        result = TEE_AllocateOperation(&operation, TEE_ALG_X25519, TEE_MODE_DERIVE, KEY_BITS);
    if (result == TEE_SUCCESS)
        result = TEE_SetOperationKey(operation, pair);
    if (result == TEE_SUCCESS) {
        TEE_InitRefAttribute(&peer, TEE_ATTR_X25519_PUBLIC_VALUE, channel->client_key, KEY_BYTES);
        TEE_DeriveKey(operation, &peer, 1, secret);
        size = KEY_BYTES;
        result = TEE_GetObjectBufferAttribute(secret, TEE_ATTR_SECRET_VALUE, shared, &size);
    }
    TEE_FreeOperation(operation);
    TEE_FreeTransientObject(secret);
    TEE_FreeTransientObject(pair);
    return result;
}

static void big_endian(uint8_t *to, uint64_t value, size_t size)
{
    while (size--) {
        to[size] = (uint8_t)value;
        value >>= 8;
    }
}

TEE_Result channel_report(const struct channel *channel, const uint8_t *nonce, uint8_t *report)
{
    const void *const pieces[] = {nonce, channel->public_key, channel->client_key};
    const size_t sizes[] = {NONCE_BYTES, KEY_BYTES, KEY_BYTES};

    memcpy(report, REPORT_MAGIC, 16);
    memcpy(report + 16, channel->public_key, KEY_BYTES);
    return sha256(pieces, sizes, 3, report + 16 + KEY_BYTES);
}

TEE_Result channel_open(struct channel *channel, const uint8_t *hello, uint8_t *report)
{
    static const char id_prefix[] = "siniantrust session id";
    uint8_t shared[KEY_BYTES], transcript[HASH_BYTES], id[HASH_BYTES], lengths[2][8];
    const void *const pieces[] = {lengths[0], hello, lengths[1], report};
    const size_t sizes[] = {8, HELLO_BYTES, 8, REPORT_BYTES};
    const void *const id_pieces[] = {id_prefix, transcript};
    const size_t id_sizes[] = {sizeof(id_prefix) - 1, HASH_BYTES};
    TEE_Result result = TEE_ERROR_BAD_FORMAT;

    if (memcmp(hello, HELLO_MAGIC, 16) != 0)
        return result;
    memcpy(channel->client_key, hello + 16 + NONCE_BYTES, KEY_BYTES);
    big_endian(lengths[0], HELLO_BYTES, 8);
    big_endian(lengths[1], REPORT_BYTES, 8);
    result = agree(channel, shared);
    if (result == TEE_SUCCESS)
        result = channel_report(channel, hello + 16, report);
    if (result == TEE_SUCCESS)
        result = sha256(pieces, sizes, 4, transcript);
    if (result == TEE_SUCCESS)
        result = sha256(id_pieces, id_sizes, 2, id);
    if (result == TEE_SUCCESS)
        result = start_cipher(&channel->to_enclave, shared, transcript, "siniantrust channel key TO_ENCLAVE",
                              TEE_MODE_DECRYPT);
    if (result == TEE_SUCCESS)
        result = start_cipher(&channel->to_client, shared, transcript, "siniantrust channel key TO_CLIENT",
                              TEE_MODE_ENCRYPT);
    memcpy(channel->session_id, id, sizeof(channel->session_id));
    TEE_MemFill(shared, 0, sizeof(shared));
    return result;
}

/* Use up one counter: its nonce and additional data bind the record to one place of one session. */
static TEE_Result next_record(struct channel *channel, enum direction direction, enum kind kind, size_t size)
{
    struct cipher *cipher = direction == TO_ENCLAVE ? &channel->to_enclave : &channel->to_client;
    uint8_t nonce[12], data[16 + 1 + 8 + 1 + 8];
    TEE_Result result = TEE_ERROR_EXCESS_DATA;

    if (size > RECORD_BYTES || cipher->counter == UINT64_MAX)
        return result;
    big_endian(nonce, direction, 4);
    big_endian(nonce + 4, cipher->counter, 8);
    memcpy(data, channel->session_id, 16);
    data[16] = direction;
    big_endian(data + 17, cipher->counter, 8);
    data[25] = kind;
    big_endian(data + 26, size, 8);
    cipher->counter++;
    result = TEE_AEInit(cipher->operation, nonce, sizeof(nonce), TAG_BYTES * 8, 0, 0);
    if (result == TEE_SUCCESS)
        TEE_AEUpdateAAD(cipher->operation, data, sizeof(data));
    return result;
}

TEE_Result channel_receive(struct channel *channel, enum kind kind, const uint8_t *sealed, size_t size, void *plain)
{
    size_t plain_size = size;
    TEE_Result result = next_record(channel, TO_ENCLAVE, kind, size);

    if (result != TEE_SUCCESS)
        return result;
    memcpy(channel->staging, sealed, size + TAG_BYTES);
    result = TEE_AEDecryptFinal(channel->to_enclave.operation, channel->staging, size, plain, &plain_size,
                                channel->staging + size, TAG_BYTES);
    if (result != TEE_SUCCESS)
        memset(plain, 0, size);
    return result;
}

TEE_Result channel_send(struct channel *channel, enum kind kind, const void *plain, size_t size, uint8_t *sealed)
{
    size_t sealed_size = size, tag_size = TAG_BYTES;
    TEE_Result result = next_record(channel, TO_CLIENT, kind, size);

    if (result != TEE_SUCCESS)
        return result;
    result = TEE_AEEncryptFinal(channel->to_client.operation, plain, size, channel->staging, &sealed_size,
                                channel->staging + size, &tag_size);
    if (result == TEE_SUCCESS)
        memcpy(sealed, channel->staging, size + TAG_BYTES);
    return result;
}

void channel_close(struct channel *channel)
{
    TEE_FreeOperation(channel->to_enclave.operation);
    TEE_FreeOperation(channel->to_client.operation);
    TEE_MemFill(channel, 0, sizeof(*channel));
}
