global-incdirs-y += .
srcs-y += main.c channel.c unseal.c seal.c part.c
cflags-part.c-y += -O2 -ffp-contract=off -fno-math-errno -fno-strict-aliasing
