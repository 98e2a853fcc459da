/* Opening sealed weights; siniantrust.trust._sealed describes their form. */
#ifndef SINIANTRUST_UNSEAL_H
#define SINIANTRUST_UNSEAL_H

#include <tee_internal_api.h>

#define SEAL_HEAD_BYTES (8 + 12)

/* Decrypt `sealed` (in shared memory) into the part's weights, each in its place.
 *
 * TEE_ERROR_MAC_INVALID: key, context or skeleton is another one, or a byte was changed; TEE_ERROR_BAD_FORMAT: what was
 * sealed is not what the part was generated from. The weights are zeroed in both cases. */
TEE_Result unseal_weights(const uint8_t *sealed, size_t size, const uint8_t *key, const uint8_t *context_sha256,
                          uint8_t *staging, size_t staging_size);

#endif
