"""Where the conformance suite finds each enclave provider: one that starts, with a platform that tests can change."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, tzinfo
from pathlib import Path

import pytest
from attestation_intel import make_intel
from attestation_pki import NOW
from attestation_snp import make_chain, make_report, sign_report
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fake_platforms import GraminePath, TsmPath, certificate_table
from remote_cases import LOOPBACK, MEASUREMENT, REFERENCE, Proxy, running

from siniantrust.errors import EnclaveError
from siniantrust.trust import Enclave, EnclaveSpec, Provenance, launch
from siniantrust.trust._cipher import Kind, RecordCipher
from siniantrust.trust.attestation import Attester, ReferenceValues, _rely
from siniantrust.trust.attestation.attesters import EndorsedAttester
from siniantrust.trust.attestation.attesters.configfs_tsm import ConfigfsTsmAttester
from siniantrust.trust.attestation.attesters.gramine import GramineAttester
from siniantrust.trust.attestation.attesters.simulated import SimulatedAttester
from siniantrust.trust.attestation.tpm2 import (
    Event,
    Swtpm,
    Tpm,
    Tpm2Attester,
    TpmError,
    accepted_events,
    begin_enrolment,
)
from siniantrust.trust.process._host import ProcessEnclave
from siniantrust.trust.service import EnclaveService
from siniantrust.trust.tls import Limits


class Stand:
    """A provider that enclaves can be launched of.

    Attributes:
        spec: what is launched.
        provenance: where the enclaves' claims come from here.
        start: launches one, which is closed when the stand is.
        kill: ends an enclave from outside.
        spoil: changes a bit of whatever goes to an enclave from now on.
        change: makes the platform, or what it measures, another one for enclaves launched from now on.
    """

    def __init__(
        self,
        spec: EnclaveSpec,
        provenance: Provenance,
        *,
        start: Callable[[], Enclave],
        kill: Callable[[Enclave], None],
        spoil: Callable[[Enclave], None],
        change: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.provenance = provenance
        self.start = start
        self.kill = kill
        self.spoil = spoil
        self.change = change


def _kill_process(enclave: Enclave) -> None:
    pid = enclave.info().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def _spoil_cipher(cipher: RecordCipher) -> None:
    """Change a bit of what a cipher seals, after that."""
    seal = cipher.seal

    def changed(kind: Kind, plain: memoryview, target: memoryview) -> None:
        seal(kind, plain, target)
        target[0] ^= 1

    cipher.seal = changed  # type: ignore[method-assign]


@contextmanager
def process_stand(folder: Path, patch: pytest.MonkeyPatch, allow_missing: tuple[str, ...]) -> Iterator[Stand]:
    """Yield the isolated process, on a simulated platform of its own."""
    patch.setenv("XDG_DATA_HOME", str(folder))
    spec = EnclaveSpec(memory_bytes=256 << 20, accept=(Provenance.SIMULATED,), allow_missing=allow_missing)

    def spoil(enclave: Enclave) -> None:
        assert isinstance(enclave, ProcessEnclave)
        _spoil_cipher(enclave._channel._sealer)

    with ExitStack() as stack:
        yield Stand(
            spec,
            Provenance.SIMULATED,
            start=lambda: stack.enter_context(closing(launch(spec))),
            kill=_kill_process,
            spoil=spoil,
            change=lambda: patch.setenv("XDG_DATA_HOME", str(folder / "another machine")),
        )


@contextmanager
def optee_stand(patch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """Yield OP-TEE under QEMU, where it is set up."""
    from siniantrust.trust.optee import _host
    from siniantrust.trust.optee._cache import find_machine

    try:
        find_machine()
    except EnclaveError as fault:
        pytest.skip(str(fault))
    spec = EnclaveSpec(provider="optee", memory_bytes=10 << 20, accept=(Provenance.EMULATED,))

    def spoil(enclave: Enclave) -> None:
        assert isinstance(enclave, _host.OpteeEnclave)
        for session in (enclave._base, *(part.session for part in enclave._parts.values())):
            _spoil_cipher(session._records.sealer)

    def change() -> None:
        other = dataclasses.replace(_host._NO_PART, source=_host._NO_PART.source + "\n/* another application */\n")
        patch.setattr(_host, "_NO_PART", other)

    with ExitStack() as stack:
        yield Stand(
            spec,
            Provenance.EMULATED,
            start=lambda: stack.enter_context(closing(launch(spec))),
            kill=_kill_process,
            spoil=spoil,
            change=change,
        )


@contextmanager
def _remote_stand(
    provider: str,
    provenance: Provenance,
    attester: Callable[[], Attester],
    reference: ReferenceValues,
    change: Callable[[], None],
) -> Iterator[Stand]:
    """Yield a provider of enclave services: each enclave has a service and a way to it of its own."""
    spec = EnclaveSpec(
        provider=provider, memory_bytes=256 << 20, accept=(Provenance.HARDWARE, provenance), reference=reference
    )
    ways: dict[int, tuple[EnclaveService, Proxy]] = {}
    with ExitStack() as stack:

        def start() -> Enclave:
            service = EnclaveService(attester(), LOOPBACK, limits=Limits(payload_bytes=64 << 20))
            proxy = Proxy(stack.enter_context(running(service)))
            address = stack.enter_context(running(proxy))
            enclave = stack.enter_context(closing(launch(dataclasses.replace(spec, address=str(address)))))
            ways[id(enclave)] = service, proxy
            return enclave

        def spoil(enclave: Enclave) -> None:
            ways[id(enclave)][1].spoils = True

        yield Stand(
            spec,
            provenance,
            start=start,
            kill=lambda enclave: ways[id(enclave)][0].close(),
            spoil=spoil,
            change=change,
        )


@contextmanager
def service_stand(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """Yield the enclave service with simulated evidence."""
    patch.setenv("XDG_DATA_HOME", str(folder))
    with _remote_stand(
        "service",
        Provenance.SIMULATED,
        lambda: SimulatedAttester(MEASUREMENT),
        REFERENCE,
        lambda: patch.setenv("XDG_DATA_HOME", str(folder / "another machine")),
    ) as stand:
        yield stand


@contextmanager
def tpm_stand() -> Iterator[Stand]:
    """Yield the enclave service on a machine whose TPM is emulated, and enrolled."""
    measured, spki = Event("package", b"p" * 32), (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with ExitStack() as stack:
        try:
            tpm = stack.enter_context(Tpm(stack.enter_context(Swtpm()).where))
        except TpmError as fault:
            pytest.skip(str(fault))
        attester, enroller = Tpm2Attester(tpm), Ed25519PrivateKey.generate()
        attester.measure(measured)
        anchors = {
            "emulated:swtpm": attester.identity().ek.public_key().public_bytes(*spki),
            "enrolment:us": enroller.public_key().public_bytes(*spki),
        }
        now = datetime.now(tz=NOW.tzinfo)
        pending = begin_enrolment(attester.identity(), anchors=anchors, now=now)
        attester.enrolment = pending.complete(attester.activate(pending.challenge), signing_key=enroller, now=now)
        reference = ReferenceValues(
            kind="tpm2",
            accepted=accepted_events([measured]) | {f"pcr-{pcr}": frozenset({"00" * 32}) for pcr in (0, 2, 4, 7)},
            at_least={"clock-ms": 0, "reset-count": 0, "restart-count": 0},
            anchors=anchors,
        )
        yield stack.enter_context(
            _remote_stand(
                "service",
                Provenance.EMULATED,
                lambda: attester,
                reference,
                # Measured once more, it is accepted as before; but the register holds another value.
                lambda: attester.measure(measured),
            )
        )


class _Then(datetime):
    """The time at which the tests' own certificates are valid."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        """Return it."""
        assert tz is not None
        return NOW


@contextmanager
def cvm_stand(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """Yield a guest of SEV-SNP: the kernel is a directory that behaves so, and the processor's keys are the tests'."""
    chain = make_chain()

    def report(binding: bytes) -> bytes:
        written = make_report()
        written[0x50:0x90] = binding
        return sign_report(written, chain.leaf)

    certificates = {"vcek": chain.leaf.der, "ask": chain.signer.der, "ark": chain.root.der, **chain.more}
    kernel = {"provider": b"sev_guest\n", "auxblob": certificate_table(certificates), "report": report}
    patch.setattr(TsmPath, "kernel", kernel)
    patch.setattr(_rely, "datetime", _Then)
    attester = ConfigfsTsmAttester(TsmPath(folder))
    with _remote_stand("cvm", Provenance.EMULATED, lambda: attester, chain.reference(), lambda: None) as stand:
        yield stand


@contextmanager
def gramine_stand(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """Yield an enclave of Gramine: its files are a directory that behaves so, and Intel's keys are the tests'."""
    pytest.importorskip("dcap_qvl")
    intel = make_intel()
    root = GraminePath(folder)
    (root / "attestation_type").write_bytes(b"dcap")
    (root / "keys").mkdir()
    (root / "keys/_sgx_mrenclave").write_bytes(b"k" * 16)
    patch.setattr(GraminePath, "make", staticmethod(lambda data: intel.quote(binding=data)))
    patch.setattr(_rely, "datetime", _Then)
    collateral = intel.evidence(b"").endorsements

    def change() -> None:
        (root / "keys/_sgx_mrenclave").write_bytes(b"o" * 16)

    with _remote_stand(
        "gramine",
        Provenance.EMULATED,
        lambda: EndorsedAttester(GramineAttester(root), collateral),
        intel.reference(),
        change,
    ) as stand:
        yield stand
