#include "seal.h"

#include <pta_system.h>
#include <string.h>

#include "channel.h"

#define MAGIC "SNSEAL\0\1"
#define MAGIC_BYTES 8
#define NONCE_AT MAGIC_BYTES
#define SEAL_NONCE_BYTES 12
#define DATA_AT (MAGIC_BYTES + SEAL_NONCE_BYTES)

/* Have OP-TEE derive the key that only an application of this UUID gets on this platform. The UUID is a hash over
 * everything that the application was built from, so that it stands for the measurement. */
static TEE_Result own_key(uint8_t *key)
{
    static const TEE_UUID system = PTA_SYSTEM_UUID;
    static char purpose[] = "siniantrust sealing 1";
    TEE_TASessionHandle handle = TEE_HANDLE_NULL;
    TEE_Param params[TEE_NUM_PARAMS] = {{{0}}};
    uint32_t origin = 0;
    TEE_Result result = TEE_OpenTASession(&system, TEE_TIMEOUT_INFINITE, 0, NULL, &handle, &origin);

    if (result != TEE_SUCCESS)
        return result;
    params[0].memref.buffer = purpose;
    params[0].memref.size = sizeof(purpose) - 1;
    params[1].memref.buffer = key;
    params[1].memref.size = KEY_BYTES;
    result = TEE_InvokeTACommand(handle, TEE_TIMEOUT_INFINITE, PTA_SYSTEM_DERIVE_TA_UNIQUE_KEY,
                                 TEE_PARAM_TYPES(TEE_PARAM_TYPE_MEMREF_INPUT, TEE_PARAM_TYPE_MEMREF_OUTPUT,
                                                 TEE_PARAM_TYPE_NONE, TEE_PARAM_TYPE_NONE),
                                 params, &origin);
    TEE_CloseTASession(handle);
    return result;
}

/* Start AES-256-GCM under the application's own key, bound to what the data are and where they were sealed. */
static TEE_Result start(uint32_t mode, const uint8_t *nonce, const uint8_t *context_sha256,
                        const uint8_t *origin_sha256, TEE_OperationHandle *operation)
{
    uint8_t key[KEY_BYTES];
    TEE_Result result = own_key(key);

    if (result == TEE_SUCCESS)
        result = gcm_operation(key, mode, operation);
    TEE_MemFill(key, 0, sizeof(key));
    if (result == TEE_SUCCESS)
        result = TEE_AEInit(*operation, nonce, SEAL_NONCE_BYTES, TAG_BYTES * 8, 0, 0);
    if (result != TEE_SUCCESS)
        return result;
    TEE_AEUpdateAAD(*operation, MAGIC, MAGIC_BYTES);
    TEE_AEUpdateAAD(*operation, context_sha256, HASH_BYTES);
    TEE_AEUpdateAAD(*operation, origin_sha256, HASH_BYTES);
    return TEE_SUCCESS;
}

TEE_Result seal_data(const uint8_t *data, size_t size, uint8_t *sealed, const uint8_t *context_sha256,
                     const uint8_t *origin_sha256)
{
    TEE_OperationHandle operation = TEE_HANDLE_NULL;
    size_t sealed_size = size, tag_size = TAG_BYTES;
    TEE_Result result = TEE_ERROR_GENERIC;

    memcpy(sealed, MAGIC, MAGIC_BYTES);
    TEE_GenerateRandom(sealed + NONCE_AT, SEAL_NONCE_BYTES);
    result = start(TEE_MODE_ENCRYPT, sealed + NONCE_AT, context_sha256, origin_sha256, &operation);
    if (result == TEE_SUCCESS)
        result = TEE_AEEncryptFinal(operation, data, size, sealed + DATA_AT, &sealed_size, sealed + DATA_AT + size,
                                    &tag_size);
    TEE_FreeOperation(operation);
    return result;
}

TEE_Result open_data(const uint8_t *sealed, size_t size, uint8_t *data, const uint8_t *context_sha256,
                     const uint8_t *origin_sha256)
{
    TEE_OperationHandle operation = TEE_HANDLE_NULL;
    uint8_t tag[TAG_BYTES];
    size_t data_size = size - SEAL_OVERHEAD_BYTES;
    TEE_Result result = TEE_ERROR_MAC_INVALID;

    if (memcmp(sealed, MAGIC, MAGIC_BYTES) != 0)
        return result;
    memcpy(tag, sealed + size - TAG_BYTES, TAG_BYTES);
    result = start(TEE_MODE_DECRYPT, sealed + NONCE_AT, context_sha256, origin_sha256, &operation);
    if (result == TEE_SUCCESS)
        result = TEE_AEDecryptFinal(operation, sealed + DATA_AT, data_size, data, &data_size, tag, TAG_BYTES);
    TEE_FreeOperation(operation);
    return result;
}
