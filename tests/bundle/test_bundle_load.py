from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from bundle_cases import Case, make_case
from hypothesis import given, settings
from hypothesis import strategies as st

from siniantrust._files import sha256_bytes
from siniantrust.bundle import KeyStore, load_bundle, parse_manifest
from siniantrust.errors import BundleError

_FILES = [
    *("part1/model.onnx", "part1/part.json", "part1/weights.sealed", "part2/model.onnx", "part2/part.json"),
    *("part3/model.onnx", "part3/part.json", "part3/weights.sealed", "plan.json", "structure.json", "annotated.onnx"),
    *("audit/audit.json", "audit/inverter.png", "audit/worst.png", "manifest.json", "manifest.sig"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    """A case and its bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    case = make_case(folder)
    return case, case.build(folder / "out")


@pytest.fixture
def copy(built: tuple[Case, Path], tmp_path: Path) -> Path:
    """A copy of the bundle to spoil."""
    return Path(shutil.copytree(built[1], tmp_path / "copy"))


def _sign_again(case: Case, bundle: Path) -> None:
    """Make the manifest and signature fit whatever is in the folder: what a builder with the key could do."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    paths = [path for path in bundle.rglob("*") if path.is_file() and not path.name.startswith("manifest.")]
    manifest["files"] = {
        str(path.relative_to(bundle)): {"sha256": sha256_bytes(path.read_bytes()), "size_bytes": path.stat().st_size}
        for path in paths
    }
    raw = json.dumps(manifest).encode()
    (bundle / "manifest.json").write_bytes(raw)
    (bundle / "manifest.sig").write_bytes(case.keystore.signing_key().sign(raw))


@pytest.mark.parametrize("name", _FILES)
def test_a_flipped_byte_is_caught_and_its_file_named(built: tuple[Case, Path], copy: Path, name: str) -> None:
    """One bit changed anywhere in any file: refused, naming the file."""
    path = copy / name
    whole = path.read_bytes()
    for position in sorted({0, len(whole) // 2, len(whole) - 1}):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(BundleError, match=name) as caught:
            load_bundle(copy, keystore=built[0].keystore)
        assert "\n" not in str(caught.value)


def test_the_list_of_files_is_complete(built: tuple[Case, Path]) -> None:
    """The test above flips a byte in every file that a bundle has."""
    assert {str(path.relative_to(built[1])) for path in built[1].rglob("*") if path.is_file()} == set(_FILES)


@pytest.mark.parametrize("name", _FILES)
def test_a_missing_or_truncated_file_is_named(built: tuple[Case, Path], copy: Path, name: str) -> None:
    """A file cut short or gone is named too."""
    path = copy / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=name):
        load_bundle(copy, keystore=built[0].keystore)
    path.unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(copy, keystore=built[0].keystore)


def test_an_added_file_is_refused(built: tuple[Case, Path], copy: Path) -> None:
    """Nothing may lie in a bundle that its builder did not sign."""
    (copy / "part2" / "extra.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"'part2/extra\.bin' is not in the manifest"):
        load_bundle(copy, keystore=built[0].keystore)


@pytest.mark.parametrize("name", ["part2/model.onnx", "manifest.json"])
def test_a_link_is_refused_even_to_the_same_bytes(built: tuple[Case, Path], copy: Path, name: str) -> None:
    """A link could point elsewhere after the check, so there are none in a bundle."""
    target = copy.parent / "elsewhere"
    shutil.copy(copy / name, target)
    (copy / name).unlink()
    (copy / name).symlink_to(target)
    with pytest.raises(BundleError, match=name):
        load_bundle(copy, keystore=built[0].keystore)


def test_a_linked_folder_is_refused(built: tuple[Case, Path], copy: Path) -> None:
    """A folder inside the bundle is no link either."""
    shutil.move(copy / "part2", copy.parent / "moved")
    (copy / "part2").symlink_to(copy.parent / "moved")
    with pytest.raises(BundleError, match="part2"):
        load_bundle(copy, keystore=built[0].keystore)


def test_a_pipe_does_not_hang_the_loader(built: tuple[Case, Path], copy: Path) -> None:
    """A named pipe in place of a file is refused at once."""
    (copy / "manifest.json").unlink()
    os.mkfifo(copy / "manifest.json")
    with pytest.raises(BundleError, match=r"manifest\.json is no plain file"):
        load_bundle(copy, keystore=built[0].keystore)


def test_an_unknown_builders_bundle_is_refused_until_trusted(
    built: tuple[Case, Path], copy: Path, tmp_path: Path
) -> None:
    """Only a key that this keystore trusts counts; adding the builder's public key lets the bundle load."""
    case, _ = built
    mine = KeyStore(tmp_path / "mine")
    with pytest.raises(BundleError, match="this keystore trusts no key at all"):
        load_bundle(copy, keystore=mine)
    mine.signing_key()
    with pytest.raises(BundleError, match="unknown builder"):
        load_bundle(copy, keystore=mine)
    mine.trust(case.keystore.public_key_pem())
    with pytest.raises(BundleError, match="its weight key is not in this keystore"):
        load_bundle(copy, keystore=mine)
    key = next((case.keystore.path / "weights").iterdir())
    (mine.path / "weights").mkdir(mode=0o700)
    shutil.copy(key, mine.path / "weights" / key.name)
    assert load_bundle(copy, keystore=mine).plan == case.plan


def test_a_forged_signature_over_a_changed_manifest_is_refused(
    built: tuple[Case, Path], copy: Path, tmp_path: Path
) -> None:
    """Signing with another key and naming it in the manifest does not help."""
    forger = make_case(tmp_path / "forger")
    forger.keystore.signing_key()
    _sign_again(forger, copy)
    with pytest.raises(BundleError, match=r"manifest\.sig is no signature"):
        load_bundle(copy, keystore=built[0].keystore)


def test_a_missing_weight_key_is_refused(tmp_path: Path) -> None:
    """Without its key a bundle is of no use, which is said at once."""
    case = make_case(tmp_path)
    out = case.build(tmp_path / "out")
    case.keystore.remove_weight_key(load_bundle(out, keystore=case.keystore).id)
    with pytest.raises(BundleError, match="its weight key is not in this keystore"):
        load_bundle(out, keystore=case.keystore)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["plan.json"], "plan.json is not valid"),
        (["structure.json"], "structure.json is of model"),
        (["audit/audit.json"], "plan.json is not valid"),
        (["part2/model.onnx"], "part.json: it names another model.onnx"),
        (["part2/model.onnx", "part2/part.json"], None),
    ],
)
def test_files_of_another_bundle_do_not_fit_even_when_signed(
    tmp_path: Path, names: list[str], complaint: str | None
) -> None:
    """Plan, structure, audit and parts are held against each other, not only against their hashes."""
    case = make_case(tmp_path / "one")
    bundle = case.build(tmp_path / "one" / "out")
    other = make_case(tmp_path / "two", seed=7).build(tmp_path / "two" / "out")
    for name in names:
        shutil.copy(other / name, bundle / name)
    _sign_again(case, bundle)
    if complaint is None:  # the same graph with other weights: only the model's hash could tell, and the builder signed
        load_bundle(bundle, keystore=case.keystore)
        return
    with pytest.raises(BundleError, match=complaint):
        load_bundle(bundle, keystore=case.keystore)


def test_a_signed_plan_that_breaks_a_label_is_refused(tmp_path: Path) -> None:
    """The validator runs again at load, on the graph in the bundle."""
    case = make_case(tmp_path)
    bundle = case.build(tmp_path / "out")
    plan = json.loads((bundle / "plan.json").read_text())
    plan["values"][1]["label"] = "public"
    (bundle / "plan.json").write_text(json.dumps(plan))
    _sign_again(case, bundle)
    with pytest.raises(BundleError, match="labels: 't0' is obscured, the plan says public"):
        load_bundle(bundle, keystore=case.keystore)


def test_a_part_with_other_nodes_than_planned_is_refused(tmp_path: Path) -> None:
    """Part 3's plain model cannot stand in for Part 2, whatever part.json says."""
    case = make_case(tmp_path)
    bundle = case.build(tmp_path / "out")
    described = json.loads((bundle / "part2" / "part.json").read_text())
    raw = (bundle / "annotated.onnx").read_bytes()
    (bundle / "part2" / "model.onnx").write_bytes(raw)
    described["sha256"] = sha256_bytes(raw)
    (bundle / "part2" / "part.json").write_text(json.dumps(described))
    _sign_again(case, bundle)
    with pytest.raises(BundleError, match=r"part2/model\.onnx is not the part"):
        load_bundle(bundle, keystore=case.keystore)


def test_no_bundle_at_all_is_one_line(tmp_path: Path) -> None:
    """A path without a bundle is named."""
    with pytest.raises(BundleError, match="cannot be opened as a folder"):
        load_bundle(tmp_path / "none", keystore=KeyStore(tmp_path / "keys"))
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        load_bundle(tmp_path, keystore=KeyStore(tmp_path / "keys"))


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "a//b", ".hidden", "a\\b", "a\x00b", "manifest.json", ""]
)
def test_paths_that_leave_the_bundle_are_refused(built: tuple[Case, Path], path: str) -> None:
    """Not even a signed manifest may name a file outside."""
    raw = json.loads((built[1] / "manifest.json").read_text())
    raw["files"] = {path: {"sha256": "0" * 64, "size_bytes": 1}}
    with pytest.raises(BundleError, match="is no path of a file inside a bundle"):
        parse_manifest(json.dumps(raw).encode(), origin="x")


def _complaint(raw: bytes) -> str:
    try:
        parse_manifest(raw, origin="x")
    except BundleError as error:
        return str(error)
    return ""


_JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just([]), st.just({}))


def _mutate(raw: Any, source: random.Random, junk: Any) -> Any:
    if isinstance(raw, dict) and raw and source.random() < 0.8:
        key = source.choice(sorted(raw))
        changed = {name: value for name, value in raw.items() if name != key}
        return changed if source.random() < 0.2 else changed | {key: _mutate(raw[key], source, junk)}
    return junk


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**9), junk=_JUNK, cut=st.integers(0, 5000))
def test_mutated_manifests_give_a_manifest_or_one_line(
    built: tuple[Case, Path], seed: int, junk: object, cut: int
) -> None:
    """Whatever stands in a manifest, reading it gives a manifest or a BundleError of one line."""
    raw = (built[1] / "manifest.json").read_bytes()
    mutated = json.dumps(_mutate(json.loads(raw), random.Random(seed), junk)).encode()
    assert "\n" not in _complaint(mutated)
    assert "\n" not in _complaint(raw[:cut])
    assert "\n" not in _complaint(raw[:cut] + mutated[cut:])
