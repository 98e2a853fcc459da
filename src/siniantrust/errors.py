"""The one family of exceptions: every message names the thing, what was expected, what was found and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class SinianError(Exception):
    """Base of every error that SinianTrust raises on purpose; the command line prints it as one line, exit code 2."""


class MissingExtraError(SinianError):
    """An optional dependency is not installed; the message is the ``pip install`` line that brings it."""


class ModelError(SinianError):
    """A model file cannot be used: unreadable, invalid, an unknown operator, or a shape that is not known."""


class DataError(SinianError):
    """Data cannot be used: wrong shape or dtype, not finite, or empty."""


class PolicyError(SinianError):
    """A policy file is malformed or contradicts itself."""


class AuditError(SinianError):
    """An audit file is malformed or belongs to another model."""


class PlanError(SinianError):
    """A plan is malformed, belongs to another model, or breaks a label."""


class NoPlanError(PlanError):
    """No placement satisfies the policy.

    ``refusals`` holds one line per candidate, saying why it was refused.
    """

    def __init__(self, message: str, refusals: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.refusals = tuple(refusals)


class BundleError(SinianError):
    """A bundle is incomplete, tampered with, signed by an unknown key, or for another model."""


class TrustError(SinianError):
    """Something of trusted execution failed; the call was refused rather than weakened."""


class AttestationError(TrustError):
    """Evidence does not match the reference values, the nonce, the session key or the admitted provenance."""


class ChannelError(TrustError):
    """A frame is malformed, replayed, reordered or does not authenticate."""


class EnclaveError(TrustError):
    """An enclave refused a request or cannot be launched."""


class EnclaveLostError(EnclaveError):
    """An enclave died or stopped answering; the next call may launch it again."""


class IntegrityError(TrustError):
    """A device's answer is not what it should be; it was withheld and nothing of it was used."""


class DeviceError(SinianError):
    """A device is missing, does not support a part, or refused a request."""


class DeviceLostError(DeviceError):
    """A device died or its connection dropped; the next call may reach it again."""


class ProtocolError(DeviceError):
    """A peer sent something that the Open Inference Protocol does not allow."""
