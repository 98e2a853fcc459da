"""What every provider of enclaves does: one suite over all of them. What only one does is in its own tests.

``cvm`` and ``gramine`` run against directories that behave as the kernel's and Gramine's, with keys of the tests' own
in the place of the makers'; so they are untested on hardware. ``optee`` runs where its machine is set up.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from provider_stands import Stand, cvm_stand, gramine_stand, optee_stand, process_stand, service_stand, tpm_stand
from trust_parts import CONTEXT, LoadPart, MakePart

from siniantrust.errors import AttestationError, ChannelError, DataError, EnclaveError, EnclaveLostError, TrustError
from siniantrust.graph import Part
from siniantrust.trust import Enclave, EnclaveSpec, Provenance, SealedData, launch, seal_part
from siniantrust.trust._registry import PROVIDERS

_FLOAT = TensorProto.FLOAT
_X = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
_STANDS = ("process", "service", "service-tpm2", "cvm", "gramine")
_UNSEALING = {"cvm"}


@pytest.fixture(
    scope="module",
    params=[*_STANDS, pytest.param("optee", marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def stand(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, allow_missing: tuple[str, ...]
) -> Iterator[Stand]:
    """Return a provider's stand."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        stands: dict[str, Callable[[], AbstractContextManager[Stand]]] = {
            "process": lambda: process_stand(folder, patch, allow_missing),
            "service": lambda: service_stand(folder, patch),
            "service-tpm2": tpm_stand,
            "cvm": lambda: cvm_stand(folder, patch),
            "gramine": lambda: gramine_stand(folder, patch),
            "optee": lambda: optee_stand(patch),
        }
        yield stack.enter_context(stands[request.param]())


@pytest.fixture(scope="module")
def enclave(stand: Stand) -> Enclave:
    """Return one enclave for all tests that do it no harm."""
    return stand.start()


@pytest.fixture
def victim(stand: Stand) -> Enclave:
    """Return an enclave of the test's own."""
    return stand.start()


@pytest.fixture
def sealing(enclave: Enclave, stand: Stand) -> Enclave:
    """Return the enclave, where its platform can seal."""
    if stand.spec.provider in _UNSEALING:
        pytest.skip("its platform has no sealing; what it says instead is tested")
    return enclave


def test_every_provider_is_here() -> None:
    """No provider is left out of the suite."""
    assert {name.partition("-")[0] for name in _STANDS} | {"optee"} == set(PROVIDERS)


def test_it_is_an_enclave(enclave: Enclave, stand: Stand) -> None:
    """It has all of the protocol, and says what it is and where its claims come from."""
    assert isinstance(enclave, Enclave)
    assert enclave.alive
    info = enclave.info()
    assert (info.provider, info.provenance, info.threads) == (stand.spec.provider, stand.provenance, 1)
    assert enclave.provenance is stand.provenance
    assert len(info.measurement) >= 64
    assert info.protections


@pytest.mark.parametrize("provider", sorted(name for name in PROVIDERS if PROVIDERS[name].provenance is not None))
def test_its_claims_have_to_be_accepted(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that accepts its source of claims by no word refuses a provider before anything is started."""
    monkeypatch.setattr("subprocess.Popen", None)
    provenance = PROVIDERS[provider].provenance
    others = tuple(each for each in Provenance if each is not provenance)
    with pytest.raises(AttestationError, match=rf"'{provider}' is {provenance}, the policy accepts: {others[0]}"):
        launch(EnclaveSpec(provider=provider, memory_bytes=1 << 20, accept=others))


def test_its_evidence_is_fresh_and_bound(enclave: Enclave, stand: Stand) -> None:
    """Evidence carries the nonce, the same measurement each time, and where the claims come from."""
    first, second = (enclave.evidence(nonce) for nonce in (b"1" * 32, b"2" * 32))
    assert (first.nonce, second.nonce) == (b"1" * 32, b"2" * 32)
    assert first.report_data != second.report_data
    assert first.enclave_public_key == second.enclave_public_key
    assert first.provenance is stand.provenance
    with pytest.raises(EnclaveError, match="32 bytes"):
        enclave.evidence(b"short")
    assert enclave.alive


def test_a_sealed_part_runs(enclave: Enclave, load_part: LoadPart, conv_part: Part) -> None:
    """A part that was loaded sealed gives what ONNX Runtime gives outside."""
    load_part(enclave, "conv", conv_part)
    bare = onnxruntime.InferenceSession(conv_part.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(enclave.run("conv", {"x": _X})["y"], bare.run(None, {"x": _X})[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", ["key", "context", "byte", "end"])
def test_changed_weights_are_refused(enclave: Enclave, conv_part: Part, wrong: str) -> None:
    """Another key or context, or a changed or missing byte, opens nothing, and the enclave lives on."""
    key = secrets.token_bytes(32)
    sealed = seal_part(conv_part, key=key, context=CONTEXT)
    data = bytearray(sealed.sealed)
    data[100] ^= wrong == "byte"
    with pytest.raises(TrustError, match="do not open"):
        enclave.load(
            "wrong",
            sealed.skeleton,
            bytes(data[:-1] if wrong == "end" else data),
            secrets.token_bytes(32) if wrong == "key" else key,
            context=b"another" if wrong == "context" else CONTEXT,
        )
    with pytest.raises(EnclaveError, match="no part 'wrong' is loaded"):
        enclave.run("wrong", {"x": _X})
    assert enclave.alive


def test_inputs_that_do_not_fit_are_refused(enclave: Enclave, load_part: LoadPart, conv_part: Part) -> None:
    """Another name, dtype or shape is refused, and the enclave lives on."""
    load_part(enclave, "conv", conv_part)
    for inputs in ({"y": _X}, {"x": _X[0]}, {"x": _X.astype(np.float64)}):
        with pytest.raises(DataError, match="part conv"):
            enclave.run("conv", inputs)
    assert enclave.alive


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_data_come_back_from_the_seal(sealing: Enclave, stand: Stand, size: int) -> None:
    """What was sealed comes back, from bytes on a disk too, and from the next enclave of the same measurement."""
    data = os.urandom(size)
    sealed = SealedData.from_bytes(sealing.seal(data, context=b"test").to_bytes())
    assert sealing.unseal(sealed, context=b"test") == data
    assert size < 16 or data not in sealed.to_bytes()
    if size == 1000:
        assert stand.start().unseal(sealed, context=b"test") == data


def test_a_seal_is_worth_what_the_enclave_is(sealing: Enclave, stand: Stand) -> None:
    """Sealed data carry where they were sealed; a better word for it breaks the seal, and a policy may refuse them."""
    sealed = sealing.seal(b"data", context=b"test")
    assert sealed.origin.provider == stand.spec.provider
    assert sealed.origin.provenance is stand.provenance
    assert sealed.origin.measurement == sealing.info().measurement
    foreign = next(each for each in Provenance if each not in stand.spec.accept)
    with pytest.raises(AttestationError, match=f"is {foreign}, the policy accepts"):
        sealing.unseal(_from(sealed, provenance=foreign), context=b"test")
    with pytest.raises(TrustError, match="provider 'another'"):
        sealing.unseal(_from(sealed, provider="another"), context=b"test")
    for accepted in stand.spec.accept:
        if accepted is not stand.provenance:
            with pytest.raises(TrustError, match="do not open here"):
                sealing.unseal(_from(sealed, provenance=accepted), context=b"test")
    assert sealing.alive


def _from(sealed: SealedData, **origin: object) -> SealedData:
    return dataclasses.replace(sealed, origin=dataclasses.replace(sealed.origin, **origin))  # type: ignore[arg-type]


def _flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


_CHANGES: dict[str, Callable[[SealedData], SealedData]] = {
    "first byte": lambda sealed: dataclasses.replace(sealed, ciphertext=_flip(sealed.ciphertext, 0)),
    "nonce": lambda sealed: dataclasses.replace(sealed, ciphertext=_flip(sealed.ciphertext, 8)),
    "data": lambda sealed: dataclasses.replace(sealed, ciphertext=_flip(sealed.ciphertext, 20)),
    "tag": lambda sealed: dataclasses.replace(sealed, ciphertext=_flip(sealed.ciphertext, -1)),
    "end": lambda sealed: dataclasses.replace(sealed, ciphertext=sealed.ciphertext[:-1]),
    "all": lambda sealed: dataclasses.replace(sealed, ciphertext=b""),
    "kept": lambda sealed: dataclasses.replace(sealed, kept=_flip(sealed.kept, -1) if sealed.kept else sealed.kept),
    "measurement": lambda sealed: _from(sealed, measurement="0" * 64),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_changed_sealed_data_are_refused(sealing: Enclave, change: str) -> None:
    """No byte of sealed data can be changed, and the enclave lives on."""
    sealed = sealing.seal(b"data", context=b"test")
    changed = _CHANGES[change](sealed)
    if changed == sealed:
        pytest.skip("this provider keeps nothing beside the data")
    with pytest.raises(TrustError, match="do not open here"):
        sealing.unseal(changed, context=b"test")
    assert sealing.alive


def test_data_open_for_their_context_only(sealing: Enclave) -> None:
    """Data sealed for one thing do not open for another."""
    with pytest.raises(TrustError, match="do not open here"):
        sealing.unseal(sealing.seal(b"data", context=b"test"), context=b"another")


def test_limits_are_enforced(
    enclave: Enclave, stand: Stand, load_part: LoadPart, make_part: MakePart, conv_part: Part
) -> None:
    """Data, tensors and names beyond what ``limits`` says are refused by name, and the enclave lives on."""
    limits = enclave.limits()
    assert limits.memory_bytes in {None, stand.spec.memory_bytes}
    assert (limits.sealed_bytes == 0) == (stand.spec.provider in _UNSEALING)
    with pytest.raises(EnclaveError, match=rf"at most {limits.sealed_bytes} bytes|has no sealing"):
        enclave.seal(bytes(limits.sealed_bytes + 1), context=b"")
    shape = [1, limits.tensors_bytes // 4 + 1]
    large = make_part([helper.make_node("Relu", ["x"], ["y"])], [("x", _FLOAT, shape)], [("y", _FLOAT, shape)])

    def run_large() -> None:
        load_part(enclave, "large", large)
        enclave.run("large", {"x": np.zeros(shape, np.float32)})

    with pytest.raises((DataError, EnclaveError), match=f"{limits.tensors_bytes}|{limits.tensors_bytes:,}"):
        run_large()
    if limits.message_bytes is not None:
        with pytest.raises(DataError, match=f"over the limit of {limits.message_bytes}"):
            enclave.run("n" * limits.message_bytes, {})
    assert enclave.alive
    load_part(enclave, "conv", conv_part)
    assert enclave.run("conv", {"x": _X})["y"].shape == (2, 8, 16, 16)


def test_parts_are_counted(victim: Enclave, stand: Stand, load_part: LoadPart, make_part: MakePart) -> None:
    """No more parts are loaded than ``limits`` says."""
    if stand.spec.provider == "optee":
        pytest.skip("its memory is full before its sessions are")
    part = make_part([helper.make_node("Neg", ["x"], ["y"])], [("x", _FLOAT, [1])], [("y", _FLOAT, [1])])
    most = victim.limits().parts
    for number in range(most):
        load_part(victim, f"part {number}", part)
    with pytest.raises(EnclaveError, match=f"{most} parts are loaded, the limit"):
        load_part(victim, "one too many", part)


def test_a_spoilt_frame_ends_it(victim: Enclave, stand: Stand, load_part: LoadPart, conv_part: Part) -> None:
    """A request with one bit changed on its way is not answered: the session ends, for all that comes later too."""
    load_part(victim, "conv", conv_part)
    stand.spoil(victim)
    for _ in range(2):
        with pytest.raises((ChannelError, EnclaveLostError)):
            victim.run("conv", {"x": _X})
    assert not victim.alive


def test_a_killed_enclave_is_lost(victim: Enclave, stand: Stand) -> None:
    """After its end from outside, calls say that it is lost, and it can be closed."""
    stand.kill(victim)
    for call in (lambda: victim.evidence(bytes(32)), lambda: victim.run("x", {})):
        with pytest.raises(EnclaveLostError):
            call()
    assert not victim.alive
    victim.close()


def test_a_closed_enclave_refuses_everything(victim: Enclave, stand: Stand, conv_part: Part) -> None:
    """After ``close`` no call is answered; closing again does nothing."""
    sealed = None if stand.spec.provider in _UNSEALING else victim.seal(b"", context=b"")
    victim.close()
    victim.close()
    assert not victim.alive
    part = seal_part(conv_part, key=bytes(32), context=b"")
    calls: list[Callable[[], object]] = [
        lambda: victim.evidence(bytes(32)),
        lambda: victim.load("x", part.skeleton, part.sealed, bytes(32), context=b""),
        lambda: victim.run("x", {}),
        lambda: victim.seal(b"", context=b""),
    ]
    if sealed is not None:
        calls.append(lambda: victim.unseal(sealed, context=b""))
    for call in calls:
        with pytest.raises(EnclaveError, match="closed"):
            call()


def test_data_sealed_elsewhere_are_refused(sealing: Enclave, stand: Stand) -> None:
    """Another platform, or another measurement, does not open the data; it changes the stand, so keep it last."""
    sealed = sealing.seal(b"data", context=b"test")
    assert sealing.unseal(sealed, context=b"test") == b"data"
    stand.change()
    with pytest.raises(TrustError, match="do not open here"):
        stand.start().unseal(sealed, context=b"test")
