"""The prime of the check of a device's work: 2^31 - 1."""

PRIME = (1 << 31) - 1
HALF = PRIME // 2
