global-incdirs-y += .
srcs-y += main.c channel.c unseal.c seal.c noise.c part.c
cflags-noise.c-y += -O2 -ffp-contract=off
cflags-part.c-y += -O2 -ffp-contract=off -fno-math-errno -fno-strict-aliasing
