/* Opening sealed weights; siniantrust.trust._sealed describes their form. */
#ifndef SINIANTRUST_UNSEAL_H
#define SINIANTRUST_UNSEAL_H

#include <tee_internal_api.h>

#define SEAL_HEAD_BYTES (8 + 12)

/* Decryption into the part's weights goes on over several calls, since shared memory is short.
 *
 * An error ends it, and zeroes the weights. TEE_ERROR_MAC_INVALID: key, context or skeleton is another one, or a byte
 * was changed; TEE_ERROR_BAD_FORMAT: what was sealed is not what the part was generated from. */
TEE_Result unseal_start(const uint8_t *head_and_tag, const uint8_t *key, const uint8_t *context_sha256);

/* Take the next piece of the ciphertext (in shared memory). After the last one every weight is in its place. */
TEE_Result unseal_feed(const uint8_t *sealed, size_t size, uint8_t *staging, size_t staging_size, bool *is_complete);

#endif
