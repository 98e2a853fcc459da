"""Numbers of the TPM 2.0 Library, Part 2 (structures): commands, handles, algorithms, attributes."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Command(IntEnum):
    """TPM_CC: the commands that are used here."""

    NV_DEFINE_SPACE = 0x12A
    CREATE_PRIMARY = 0x131
    NV_INCREMENT = 0x134
    STARTUP = 0x144
    SHUTDOWN = 0x145
    ACTIVATE_CREDENTIAL = 0x147
    NV_READ = 0x14E
    POLICY_SECRET = 0x151
    CREATE = 0x153
    LOAD = 0x157
    QUOTE = 0x158
    UNSEAL = 0x15E
    FLUSH_CONTEXT = 0x165
    NV_READ_PUBLIC = 0x169
    START_AUTH_SESSION = 0x176
    PCR_READ = 0x17E
    POLICY_PCR = 0x17F
    PCR_EXTEND = 0x182
    NV_CERTIFY = 0x184


class Handle(IntEnum):
    """TPM_RH: permanent handles."""

    OWNER = 0x40000001
    NULL = 0x40000007
    PASSWORD = 0x40000009
    ENDORSEMENT = 0x4000000B


class Algorithm(IntEnum):
    """TPM_ALG_ID."""

    RSA = 0x0001
    AES = 0x0006
    KEYEDHASH = 0x0008
    SHA256 = 0x000B
    NULL = 0x0010
    ECDSA = 0x0018
    ECC = 0x0023
    CFB = 0x0043


class Attributes(IntFlag):
    """TPMA_OBJECT: what a key may do, and whether it can leave its TPM."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


class NvAttributes(IntFlag):
    """TPMA_NV: what an NV index is and who may use it."""

    OWNER_WRITE = 1 << 1
    AUTH_WRITE = 1 << 2
    COUNTER = 1 << 4
    OWNER_READ = 1 << 17
    AUTH_READ = 1 << 18
    NO_DA = 1 << 25
    WRITTEN = 1 << 29


GENERATED_MAGIC = 0xFF544347
ST_ATTEST_NV = 0x8014
ST_ATTEST_QUOTE = 0x8018
ECC_NIST_P256 = 0x0003
SHA256_BYTES = 32
NAME_BYTES = 2 + SHA256_BYTES
