from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import JUNK, spoil_bytes, spoil_tree
from planner_models import chain_model, make_audit

from siniantrust.errors import AuditError, DataError, PolicyError, SinianError
from siniantrust.graph import enumerate_cuts
from siniantrust.leakage import load_audit, read_arrays
from siniantrust.leakage._audit_file import audit_bytes, sealed
from siniantrust.planner import load_policy

SEEDS = st.integers(0, 10**9)
POLICY = (Path(__file__).parents[2] / "src" / "siniantrust" / "demo" / "policy.toml").read_bytes()
MODEL = chain_model(4)
AUDIT = audit_bytes(sealed(make_audit(MODEL, enumerate_cuts(MODEL), {"c001-t0": 0.1, "c002-t1": 0.1})))


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, inputs=np.zeros((3, 2), np.float32), labels=np.arange(3))
    return stream.getvalue()


def _npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 2), np.float32))
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one folder whose files are written over and over."""
    return tmp_path_factory.mktemp("fuzz")


def _check(read: Callable[[Path], object], path: Path, raw: bytes, error: type[SinianError]) -> None:
    """Read ``raw`` from ``path``: a result or exactly this kind of error, whose message names the file."""
    path.write_bytes(raw)
    try:
        read(path)
    except error as complaint:
        assert str(path) in str(complaint)  # noqa: PT017 - the error is one of two allowed outcomes
        assert "\n" not in str(complaint)  # noqa: PT017 - as above


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200))
@example(text="a = " + "[" * 100_000)
@example(text="a = 1" + "0" * 10_000)
@example(text='"a\\nb" = 1')
@example(text="[enclave]\nmemory_bytes = 1e999")
@example(text="[leakage]\nmax = { ssim = nan }")
def test_any_text_is_a_policy_or_a_policy_error(folder: Path, text: str) -> None:
    """Whatever a policy file holds, reading it gives a policy or a PolicyError that names it."""
    _check(load_policy, folder / "policy.toml", text.encode(), PolicyError)


@settings(max_examples=300, deadline=None)
@given(seed=SEEDS, junk=st.binary(max_size=10))
def test_a_spoilt_policy_is_a_policy_or_a_policy_error(folder: Path, seed: int, junk: bytes) -> None:
    """The same for a good policy in which bytes were changed."""
    _check(load_policy, folder / "policy.toml", spoil_bytes(POLICY, random.Random(seed), junk), PolicyError)


@pytest.mark.parametrize(("name", "raw"), [("data.npz", _npz()), ("data.npy", _npy())])
@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, junk=st.binary(max_size=20))
def test_spoilt_data_are_data_or_a_data_error(folder: Path, name: str, raw: bytes, seed: int, junk: bytes) -> None:
    """A NumPy file in which bytes were changed is read, or is refused with its name."""
    _check(read_arrays, folder / name, spoil_bytes(raw, random.Random(seed), junk), DataError)


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS, junk=st.binary(max_size=20))
@example(seed=0, junk=b"[" * 200_000)
def test_a_changed_audit_is_never_believed(folder: Path, seed: int, junk: bytes) -> None:
    """An audit in which anything was changed is refused, unless it says the same in other words."""
    path = folder / "audit.json"
    path.write_bytes(spoil_bytes(AUDIT, random.Random(seed), junk))
    try:
        found = load_audit(path)
    except AuditError as complaint:
        assert str(path) in str(complaint)  # noqa: PT017 - as above
    else:
        assert audit_bytes(found) == AUDIT


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS, junk=JUNK)
def test_an_audit_with_another_value_is_never_believed(folder: Path, seed: int, junk: object) -> None:
    """The same for values that were changed within the JSON."""
    path = folder / "audit.json"
    path.write_text(json.dumps(spoil_tree(json.loads(AUDIT), random.Random(seed), junk)))
    try:
        found = load_audit(path)
    except AuditError as complaint:
        assert str(path) in str(complaint)  # noqa: PT017 - as above
    else:
        assert audit_bytes(found) == AUDIT
