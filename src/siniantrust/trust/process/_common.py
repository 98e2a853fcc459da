"""What both sides of the process enclave know."""

from __future__ import annotations

PROVIDER = "process"
MAX_PARTS = 64

# Exit codes that tell the launching side why the enclave gave up (after sysexits.h: EX_OSERR, EX_PROTOCOL).
EXIT_MEMORY = 71
EXIT_CHANNEL = 76

MEMORY_REFUSAL = "out of memory"
