"""What a TPM's response code means, in words (TPM 2.0 Library, Part 2, section 6.6)."""

from __future__ import annotations

from siniantrust.errors import AttestationError

RETRYABLE = frozenset({0x908, 0x90A, 0x922})
NO_SUCH_HANDLE = 0x0B
NV_DEFINED = 0x14C

_FORMAT_ONE = {
    0x01: "asymmetric algorithm not supported",
    0x02: "attributes not allowed here",
    0x03: "hash algorithm not supported",
    0x04: "value out of range",
    0x05: "hierarchy disabled or not right here",
    0x07: "key size not supported",
    0x08: "mask generation function not supported",
    0x09: "mode of operation not supported",
    0x0A: "type of value not right here",
    0x0B: "nothing lives under this handle",
    0x0C: "key derivation function not supported",
    0x0D: "value out of the allowed range",
    0x0E: "password or HMAC wrong, counted towards lockout",
    0x0F: "nonce of wrong size",
    0x10: "physical presence required",
    0x12: "scheme not supported",
    0x15: "structure of wrong size",
    0x16: "symmetric algorithm or key size not supported",
    0x17: "structure tag wrong",
    0x18: "union selector wrong",
    0x1A: "structure ends too early",
    0x1B: "signature not valid",
    0x1C: "key fields not compatible with its use",
    0x1D: "policy not satisfied",
    0x1F: "integrity check failed",
    0x20: "ticket not valid",
    0x21: "reserved bits set",
    0x22: "password or HMAC wrong",
    0x23: "policy expired",
    0x24: "policy is for another command",
    0x25: "public and sensitive part do not belong together",
    0x26: "curve not supported",
    0x27: "point not on the curve",
}
_FORMAT_ZERO = {
    0x00: "not started up",
    0x01: "failure mode",
    0x03: "sequence handle used wrongly",
    0x20: "command disabled",
    0x21: "another session is exclusive",
    0x24: "this kind of authorisation is not allowed for the object",
    0x25: "authorisation missing",
    0x26: "policy failed",
    0x27: "PCR check failed",
    0x28: "PCRs changed since the policy read them",
    0x2D: "firmware upgrade under way",
    0x2E: "too many contexts",
    0x2F: "the object has no authorisation value or policy for this",
    0x30: "reboot required",
    0x31: "unbalanced algorithms",
    0x42: "command size wrong",
    0x43: "command not implemented",
    0x44: "authorisation area of wrong size",
    0x45: "authorisation not allowed for this command",
    0x46: "NV offset out of range",
    0x47: "NV size not right",
    0x48: "NV index locked",
    0x49: "NV access not authorised",
    0x4A: "NV index not written yet",
    0x4B: "no NV space left",
    0x4C: "NV index already defined",
    0x50: "context not valid",
    0x51: "command parameters' hash set already",
    0x52: "parent key not valid",
    0x53: "self-test needed",
    0x54: "no result",
    0x55: "sensitive area malformed",
}
_WARNING = {
    0x01: "context gap too large",
    0x02: "no memory for another object; flush one",
    0x03: "no memory for another session; flush one",
    0x04: "out of memory",
    0x05: "no session handle left",
    0x06: "no object handle left",
    0x07: "wrong locality",
    0x08: "command suspended; try again",
    0x09: "command cancelled",
    0x0A: "self-tests running; try again",
    0x20: "NV writes come too fast; wait",
    0x21: "in dictionary-attack lockout",
    0x22: "busy; try again",
    0x23: "NV not available",
}


class TpmError(AttestationError):
    """A TPM refused a command, did not answer, or answered with something that is no TPM 2.0 response.

    Attributes:
        code: its response code without the number of the handle, session or parameter; ``None`` without one.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


def refusal(command: str, raw: int) -> TpmError:
    """Return the error for a response code that is not success."""
    code = raw & 0xFFF  # what lies above names the layer of software that made the code
    if code & 0x80:
        number = code >> 8
        place = f"parameter {number}" if code & 0x40 else f"session {number & 7}" if number & 8 else f"handle {number}"
        words, kept = f"{_FORMAT_ONE.get(code & 0x3F, 'error without a name')} ({place})", code & 0x3F
    elif code & 0x800:
        words, kept = _WARNING.get(code & 0x7F, "warning without a name"), code
    else:
        words, kept = _FORMAT_ZERO.get(code & 0x7F, "error without a name"), code
    return TpmError(f"TPM: it refused {command}: {words}; response code {raw:#x}", kept)
