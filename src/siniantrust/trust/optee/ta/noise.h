/* Noise that the part is fed: fresh for every run, and never from outside. */
#ifndef SINIANTRUST_NOISE_H
#define SINIANTRUST_NOISE_H

#include <tee_internal_api.h>

/* Fill the part's inputs of noise. After an error they must not be used, and the session must end. */
TEE_Result noise_draw(void);
void noise_close(void);

#endif
