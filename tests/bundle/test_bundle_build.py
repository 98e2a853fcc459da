from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_cases import SECRET_WEIGHT, WIDTH, Case, make_case, make_model, run_part

from siniantrust.bundle import Bundle, TrustedPart, build_bundle, load_bundle
from siniantrust.errors import AuditError, BundleError, PlanError, TrustError
from siniantrust.graph import Part, read_device_configurations
from siniantrust.leakage import load_audit
from siniantrust.leakage._audit_file import sealed
from siniantrust.odla import DeviceSpec, open_device
from siniantrust.odla.oip import Server
from siniantrust.trust import unseal_part


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A plan of three parts and what building it needs."""
    return make_case(tmp_path)


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_holds_what_it_should(case: Case, tmp_path: Path) -> None:
    """Three parts, the plan, the evidence and the signed manifest; nothing else."""
    case.build(tmp_path / "out")
    assert _files(tmp_path / "out") == {
        *("part1/model.onnx", "part1/part.json", "part1/weights.sealed"),
        *("part2/model.onnx", "part2/part.json"),
        *("part3/model.onnx", "part3/part.json", "part3/weights.sealed"),
        *("plan.json", "structure.json", "annotated.onnx", "audit/audit.json", "audit/inverter.png", "audit/worst.png"),
        *("manifest.json", "manifest.sig"),
    }


def test_the_parts_compose_to_the_model(case: Case, tmp_path: Path) -> None:
    """Unsealed and run in order, the loaded parts give the whole model's outputs for any batch."""
    bundle = load_bundle(case.build(tmp_path / "out"), keystore=case.keystore)
    key = case.keystore.weight_key(bundle.id)
    values = {"x": np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)}
    expected = dict(values)
    run_part(case.model.proto, expected)
    for part in bundle.parts:
        if isinstance(part, TrustedPart):
            run_part(unseal_part(part.skeleton, part.sealed, key=key, context=part.context), values)
        else:
            run_part(part.proto, values)
    np.testing.assert_allclose(values["t5"], expected["t5"], rtol=1e-6)


def test_loading_gives_back_plan_audit_and_shapes(case: Case, tmp_path: Path) -> None:
    """What was built is what is loaded."""
    bundle = load_bundle(case.build(tmp_path / "out"), keystore=case.keystore)
    assert isinstance(bundle, Bundle)
    assert bundle.plan == case.plan
    assert bundle.audit is not None
    assert bundle.audit.id == case.plan.audit_id
    assert [type(part) for part in bundle.parts] == [TrustedPart, Part, TrustedPart]
    assert (bundle.inputs, bundle.outputs) == (case.model.inputs, case.model.outputs)
    assert bundle.batch_symbol == case.model.batch_symbol


def test_no_file_holds_a_sealed_weight(case: Case, tmp_path: Path) -> None:
    """Part 1's numbers are in no file in plain, the annotated model included, nor is the weight key."""
    out = case.build(tmp_path / "out")
    bundle = load_bundle(out, keystore=case.keystore)
    key = case.keystore.weight_key(bundle.id)
    row = SECRET_WEIGHT[0].tobytes()
    for path in out.rglob("*"):
        if path.is_file():
            assert row not in path.read_bytes(), path
            assert key not in path.read_bytes(), path


def test_the_annotated_model_is_valid_and_names_the_devices(case: Case, tmp_path: Path) -> None:
    """Other tools can open the annotated model, in which sealed weights are inputs."""
    path = case.build(tmp_path / "out") / "annotated.onnx"
    onnx.checker.check_model(str(path))
    proto = onnx.load(path)
    assert read_device_configurations(proto) == {name: part.device for part in case.plan.parts for name in part.nodes}
    assert [value.name for value in proto.graph.input] == ["x", "w0"]


def test_two_part_bundles_are_built_too(tmp_path: Path) -> None:
    """Under input privacy there is no third part."""
    case = make_case(tmp_path, threat_model="input-privacy")
    bundle = load_bundle(case.build(tmp_path / "out"), keystore=case.keystore)
    assert [part.name for part in bundle.parts] == ["part1", "part2"]


def test_building_again_replaces_the_bundle(case: Case, tmp_path: Path) -> None:
    """The new bundle takes the place of the old one and has an id and key of its own."""
    first = load_bundle(case.build(tmp_path / "out"), keystore=case.keystore)
    second = load_bundle(case.build(tmp_path / "out"), keystore=case.keystore)
    assert first.id != second.id
    assert case.keystore.weight_key(first.id) != case.keystore.weight_key(second.id)


def test_a_folder_that_is_no_bundle_is_not_replaced(case: Case, tmp_path: Path) -> None:
    """A mistyped path does not cost the user's own files."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="something that is no bundle"):
        case.build(tmp_path / "out")
    assert _files(tmp_path / "out") == {"thesis.txt"}


def test_a_plan_of_another_model_is_refused(case: Case, tmp_path: Path) -> None:
    """The plan is validated again at build."""
    with pytest.raises(PlanError, match="model: the plan is for"):
        build_bundle(
            make_model(seed=1), case.plan, tmp_path / "out", keystore=case.keystore, audit_folder=case.audit_folder
        )


def test_a_plan_that_rests_on_an_audit_needs_it(case: Case, tmp_path: Path) -> None:
    """Evidence has to be in the bundle."""
    with pytest.raises(BundleError, match=f"rests on audit {case.plan.audit_id}"):
        build_bundle(case.model, case.plan, tmp_path / "out", keystore=case.keystore)


@pytest.mark.parametrize("name", ["inverter.png", "worst.png"])
def test_a_missing_picture_is_named(case: Case, tmp_path: Path, name: str) -> None:
    """An audit without its pictures is incomplete evidence."""
    (case.audit_folder / name).unlink()
    with pytest.raises(AuditError, match=rf"{name}: cannot be read"):
        case.build(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_picture_outside_the_audit_is_refused(case: Case, tmp_path: Path) -> None:
    """An audit cannot make the builder pack other files of the machine."""
    audit = load_audit(case.audit_folder).model_copy(update={"originals_picture": "../keys/signing.pem"})
    (case.audit_folder / "audit.json").write_text(sealed(audit).model_dump_json())
    with pytest.raises(AuditError, match="no path inside the audit's folder"):
        case.build(tmp_path / "out")


def test_an_audit_that_was_edited_is_refused(case: Case, tmp_path: Path) -> None:
    """Figures changed by hand no longer have the audit's id."""
    path = case.audit_folder / "audit.json"
    path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    with pytest.raises(AuditError, match="its id does not match its content"):
        case.build(tmp_path / "out")


_BUILD_ON_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bundle_cases import make_case
from siniantrust.errors import BundleError
case = make_case(Path(sys.argv[2]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
case.keystore.signing_key()
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
try:
    case.build(Path(sys.argv[2]) / "out")
except BundleError as error:
    print(error)
"""


def test_a_failing_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """When writing fails half-way, the error is one line, and neither files nor the weight key remain."""
    command = [sys.executable, "-c", _BUILD_ON_FULL_DISK, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "cannot be written (File too large); nothing was left behind" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit", "keys"]
    assert list((tmp_path / "keys" / "weights").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_nothing_behind(case: Case, tmp_path: Path) -> None:
    """On a disk that is really full the build fails in one line and removes what it wrote."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=False).returncode:  # noqa: S607 - the system's mount
        pytest.skip("this machine does not allow mounting")
    try:
        with pytest.raises(BundleError, match=r"cannot be written \(No space left on device\)"):
            case.build(disk / "out")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607 - the system's umount
    assert list((case.keystore.path / "weights").iterdir()) == []


def test_a_refusing_keystore_stops_the_build(case: Case, tmp_path: Path) -> None:
    """A signing key that others may read is not used."""
    case.keystore.signing_key()
    (case.keystore.path / "signing.pem").chmod(0o640)
    with pytest.raises(TrustError, match=r"others may read it \(mode 0640\)"):
        case.build(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_untrusted_part_can_be_served_alone(case: Case, tmp_path: Path) -> None:
    """The folder of Part 2 is all that a server needs, and the loaded part is accepted against it."""
    bundle = load_bundle(case.build(tmp_path / "out"), keystore=case.keystore)
    part = bundle.parts[1]
    assert isinstance(part, Part)
    with Server(tmp_path / "out" / "part2") as endpoints:
        device = open_device(DeviceSpec("cloud", "remote", {"url": endpoints.grpc_url}))
        remote = device.compile(part)
        inputs = {tensor.name: np.ones(tensor.shape, np.float32) for tensor in part.inputs}
        answer = remote.run(inputs)
        remote.close()
    assert set(answer) == {tensor.name for tensor in part.outputs}
