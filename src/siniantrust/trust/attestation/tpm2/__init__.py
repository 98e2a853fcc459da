"""Attestation, sealing and rollback protection by a TPM 2.0: the kernel's device in the field, swtpm in tests."""

from siniantrust.trust.attestation.tpm2._attester import KIND, Tpm2Attester
from siniantrust.trust.attestation.tpm2._codes import TpmError
from siniantrust.trust.attestation.tpm2._counter import FileCounter, RollbackCounter, TpmCounter, admit_version
from siniantrust.trust.attestation.tpm2._counter_setup import CounterPlace, set_up_counter
from siniantrust.trust.attestation.tpm2._credential import AkChallenge
from siniantrust.trust.attestation.tpm2._device import DEFAULT_DEVICE, Tpm
from siniantrust.trust.attestation.tpm2._enrolment import PendingEnrolment, begin_enrolment
from siniantrust.trust.attestation.tpm2._event_log import Event, EventLog, parse_event_log
from siniantrust.trust.attestation.tpm2._identity import Identity, parse_identity
from siniantrust.trust.attestation.tpm2._measure import accepted_events, deployment_events
from siniantrust.trust.attestation.tpm2._pcr import DEFAULT_PCR
from siniantrust.trust.attestation.tpm2._public import parse_public
from siniantrust.trust.attestation.tpm2._seal import seal, unseal
from siniantrust.trust.attestation.tpm2._swtpm import Swtpm
from siniantrust.trust.attestation.tpm2._verifier import Tpm2Verifier, pin_clock

__all__ = [
    "DEFAULT_DEVICE",
    "DEFAULT_PCR",
    "KIND",
    "AkChallenge",
    "CounterPlace",
    "Event",
    "EventLog",
    "FileCounter",
    "Identity",
    "PendingEnrolment",
    "RollbackCounter",
    "Swtpm",
    "Tpm",
    "Tpm2Attester",
    "Tpm2Verifier",
    "TpmCounter",
    "TpmError",
    "accepted_events",
    "admit_version",
    "begin_enrolment",
    "deployment_events",
    "parse_event_log",
    "parse_identity",
    "parse_public",
    "pin_clock",
    "seal",
    "set_up_counter",
    "unseal",
]
