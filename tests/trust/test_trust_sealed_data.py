"""Sealed data as bytes, the keys for them, and the secret of the simulated platform."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siniantrust.errors import EnclaveError, TrustError
from siniantrust.trust import Enclave, Provenance, SealedData, SealOrigin
from siniantrust.trust._codec import Operation
from siniantrust.trust._seal_call import seal_by, unseal_by
from siniantrust.trust._sealing import DerivedSealing, open_data, seal_data, sealing_of
from siniantrust.trust._simulated_platform import simulated_platform_secret
from siniantrust.trust.process._host import ProcessEnclave

_HERE = SealOrigin("process", Provenance.SIMULATED, "ab" * 32)
_ORIGINS = st.builds(SealOrigin, st.text(max_size=40), st.sampled_from(Provenance), st.text(max_size=200))


@given(st.builds(SealedData, _ORIGINS, st.binary(max_size=500), st.binary(max_size=500)))
def test_sealed_data_are_read_as_written(sealed: SealedData) -> None:
    """What goes to a file comes back from it."""
    assert SealedData.from_bytes(sealed.to_bytes()) == sealed


@given(
    st.binary(max_size=300)
    | st.tuples(st.integers(0, 65535), st.binary(max_size=300)).map(
        lambda case: b"SNDATA\x00\x01" + case[0].to_bytes(2, "big") + case[1]
    )
)
def test_anything_else_is_refused(raw: bytes) -> None:
    """Bytes that no enclave wrote are an error that says so, or the very bytes of sealed data."""
    try:
        sealed = SealedData.from_bytes(raw)
    except TrustError as refusal:
        assert "expected what an enclave sealed" in str(refusal)  # noqa: PT017 - one of two allowed outcomes
    else:
        assert sealed.to_bytes() == raw


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"simulated", b"certified"), (b'"process"', b"123456789"), (b'", "', b'" ,"'), (b"measurement", b"measuremen_")],
    ids=["provenance", "provider", "form", "fields"],
)
def test_another_origin_is_refused(before: bytes, after: bytes) -> None:
    """The word of where data were sealed has one form, in which nothing is missing."""
    raw = SealedData(_HERE, b"kept", b"ciphertext").to_bytes()
    assert before in raw
    with pytest.raises(TrustError, match="expected what an enclave sealed"):
        SealedData.from_bytes(raw.replace(before, after, 1))


def test_keys_are_for_one_secret_one_measurement_and_one_salt() -> None:
    """A key comes back for what it was made for, and for nothing else; no two are the same."""
    sealing = DerivedSealing(b"s" * 32, measurement="m")
    key, salt = sealing.new_key()
    assert len(key) == 32
    assert DerivedSealing(b"s" * 32, measurement="m").key_again(salt) == key
    others = [
        DerivedSealing(b"t" * 32, measurement="m").key_again(salt),
        DerivedSealing(b"s" * 32, measurement="n").key_again(salt),
        sealing.key_again(bytes(32)),
        sealing.new_key()[0],
    ]
    assert len({key, *others}) == 5
    with pytest.raises(TrustError, match="expected a salt of 32 bytes, found 31"):
        sealing.key_again(salt[:-1])
    with pytest.raises(EnclaveError, match="gives no secret"):
        DerivedSealing(bytes(32), measurement="m")


def test_data_are_sealed_in_the_enclaves_form() -> None:
    """What the enclave seals, it opens in place, for the same origin and context only."""
    sealing = DerivedSealing(b"s" * 32, measurement="m")
    kept, sealed = seal_data(sealing, b"data", origin=b"o", context=b"c")
    opened = open_data(sealing, memoryview(bytearray(sealed)), kept=kept, origin=b"o", context=b"c")
    assert bytes(opened) == b"data"
    with pytest.raises(TrustError, match="do not open"):
        open_data(sealing, memoryview(bytearray(sealed)), kept=kept, origin=b"p", context=b"c")


def test_a_platform_without_sealing_says_what_to_do() -> None:
    """The refusal names the way that is left: a key of the broker's."""
    with pytest.raises(EnclaveError, match=r"no sealing; keep the data under a key of the key broker"):
        sealing_of(object())


@pytest.fixture
def secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the simulated platform's secret is kept, for this test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "siniantrust" / "simulated-platform"


def test_the_simulated_platform_keeps_its_secret(secret_file: Path) -> None:
    """It is made once, for its owner's eyes, and stays the same; nothing is left beside it."""
    secret = simulated_platform_secret()
    assert simulated_platform_secret() == secret == secret_file.read_bytes()
    assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600
    assert list(secret_file.parent.iterdir()) == [secret_file]


@pytest.mark.usefixtures("secret_file")
def test_everybody_gets_the_same_secret() -> None:
    """Of several that make the secret at once, all end up with one."""
    found: list[bytes] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        found.append(simulated_platform_secret())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_secret_that_is_none_is_refused(secret_file: Path) -> None:
    """A file of another size, or a place where nothing can be kept, is named."""
    simulated_platform_secret()
    secret_file.write_bytes(b"short")
    with pytest.raises(EnclaveError, match="expected 32 bytes, found 5; remove the file"):
        simulated_platform_secret()
    secret_file.unlink()
    secret_file.mkdir()
    with pytest.raises(EnclaveError, match="its secret cannot be kept there"):
        simulated_platform_secret()


@pytest.mark.parametrize(
    ("operation", "match"),
    [(Operation.SEAL, "sealing needs 'origin'"), (Operation.UNSEAL, "unsealing needs 'origin'")],
)
def test_an_incomplete_request_is_refused(shared_enclave: Enclave, operation: Operation, match: str) -> None:
    """The enclave names what a request lacks, and goes on."""
    assert isinstance(shared_enclave, ProcessEnclave)
    with pytest.raises(EnclaveError, match=match):
        shared_enclave._call(operation, "", [])
    assert shared_enclave.alive


def test_a_request_without_the_platforms_secret_is_refused(shared_enclave: Enclave) -> None:
    """The key of the request before does not linger, so that nothing is ever sealed under zeros."""
    assert isinstance(shared_enclave, ProcessEnclave)
    shared_enclave.seal(b"data", context=b"")
    with pytest.raises(EnclaveError, match="gives no secret"):
        seal_by(shared_enclave._call, b"data", here=_HERE, context=b"")


def test_an_answer_that_lacks_something_is_refused() -> None:
    """An enclave that answers with less than was asked for is named."""
    nothing: Callable[..., dict[str, np.ndarray]] = lambda *_request: {}  # noqa: E731 - it is all there is to it
    with pytest.raises(EnclaveError, match="its answer to sealing lacks 'kept'"):
        seal_by(nothing, b"data", here=_HERE, context=b"")
    with pytest.raises(EnclaveError, match="its answer to unsealing has no data"):
        unseal_by(nothing, SealedData(_HERE, b"", b""), here=_HERE, context=b"", accept=(Provenance.SIMULATED,))
