"""Setting up a counter: in a TPM that an anchor vouches for, under an attestation key that lives in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from siniantrust.errors import AttestationError
from siniantrust.trust._labels import Provenance
from siniantrust.trust.attestation._reference_file import Reference
from siniantrust.trust.attestation.tpm2 import _commands
from siniantrust.trust.attestation.tpm2._attester import KIND, find_certificate
from siniantrust.trust.attestation.tpm2._codes import NV_DEFINED, TpmError
from siniantrust.trust.attestation.tpm2._constants import Handle
from siniantrust.trust.attestation.tpm2._counter import DEFAULT_INDEX, TpmCounter
from siniantrust.trust.attestation.tpm2._device import Tpm
from siniantrust.trust.attestation.tpm2._ek_chain import anchor_provenance
from siniantrust.trust.attestation.tpm2._enrolment import begin_enrolment
from siniantrust.trust.attestation.tpm2._identity import Identity
from siniantrust.trust.attestation.tpm2._public import AK_TEMPLATE, PublicArea, ek_template

_INDICES = 16


@dataclass(frozen=True, slots=True)
class CounterPlace:
    """What a Relying Party keeps of a counter: whoever changes it can roll back; see ``TpmCounter``."""

    index: int
    base: int
    ak: PublicArea


def set_up_counter(tpm: Tpm, *, version: int, reference: Reference, now: datetime) -> tuple[CounterPlace, Provenance]:
    """Define a counter that stands at ``version``, at the first free index, after the TPM has shown which one it is.

    Raises:
        AttestationError: if none of the reference's anchors vouches for the TPM at time ``now``, it is of a provenance
            that the reference does not accept, or its attestation key does not live beside the endorsement key.
        TpmError: if no index is free.
    """
    if reference.values.kind != KIND:
        raise AttestationError(f"TPM counter: expected reference values of kind {KIND}, found {reference.values.kind}")
    kind, certificate = find_certificate(tpm)
    with (
        _commands.primary(tpm, Handle.ENDORSEMENT, AK_TEMPLATE) as (ak_handle, ak),
        _commands.primary(tpm, Handle.ENDORSEMENT, ek_template(kind)) as (ek_handle, ek),
    ):
        identity = Identity(ak=ak, ek=ek, certificate=certificate)
        pending = begin_enrolment(identity, anchors=reference.values.anchors, now=now)
        provenance = anchor_provenance(pending.anchor)
        if provenance not in reference.accept:
            accepted = ", ".join(sorted(reference.accept)) or "nothing"
            raise AttestationError(f"TPM {tpm.where}: it is {provenance}, the reference accepts: {accepted}")
        challenge = pending.challenge
        answer = _commands.activate_credential(
            tpm, ak=ak_handle, ek=ek_handle, blob=challenge.blob, secret=challenge.secret
        )
    # Nobody reads the record: what counts is that the answer is right.
    pending.complete(answer, signing_key=Ed25519PrivateKey.generate(), now=now)
    for index in range(DEFAULT_INDEX, DEFAULT_INDEX + _INDICES):
        try:
            return CounterPlace(index, TpmCounter.define(tpm, version=version, index=index), ak), provenance
        except TpmError as fault:
            if fault.code != NV_DEFINED:
                raise
    raise TpmError(f"TPM {tpm.where}: all of its {_INDICES} places for counters are taken; remove one that is not used")
