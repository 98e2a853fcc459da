/* Sealing data for this very application: its key comes from the platform's and from the application's UUID. */
#ifndef SINIANTRUST_SEAL_H
#define SINIANTRUST_SEAL_H

#include <tee_internal_api.h>

#define SEAL_MOST_BYTES (16 * 1024)
/* Magic, nonce and tag; siniantrust.trust._sealed describes the form. */
#define SEAL_OVERHEAD_BYTES (8 + 12 + 16)

/* Write the sealed form of data, SEAL_OVERHEAD_BYTES longer. The two do not overlap: OP-TEE's AES-GCM goes wrong then. */
TEE_Result seal_data(const uint8_t *data, size_t size, uint8_t *sealed, const uint8_t *context_sha256,
                     const uint8_t *origin_sha256);

/* Write the data in a sealed form of `size` bytes, at least SEAL_OVERHEAD_BYTES. TEE_ERROR_MAC_INVALID: another
 * application or platform sealed it, or for something else, or it was changed. */
TEE_Result open_data(const uint8_t *sealed, size_t size, uint8_t *data, const uint8_t *context_sha256,
                     const uint8_t *origin_sha256);

#endif
