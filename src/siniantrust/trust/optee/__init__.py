"""A part as a trusted application of OP-TEE, in ARM TrustZone as QEMU emulates it. Labelled ``emulated``."""
