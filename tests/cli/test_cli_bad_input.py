from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import START, Outcome, Workshop, write_policy
from onnx import TensorProto, helper
from planner_models import chain_model

Refused = Callable[..., Outcome]


def _save_model(path: Path, node: onnx.NodeProto, shape: list[int | str], *, domain: str = "") -> Path:
    domains = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([node], "bad", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=9), path)
    return path


@pytest.mark.parametrize("command", ["inspect", "audit", "plan", "build"])
@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "folder", "missing"])
def test_what_is_no_model(refused: Refused, workshop: Workshop, tmp_path: Path, command: str, kind: str) -> None:
    """A truncated model, another kind of file, an empty one, a folder and nothing at all are refused everywhere."""
    bad = tmp_path / "bad.onnx"
    if kind == "truncated":
        bad.write_bytes(workshop.model.read_bytes()[:-500])
    elif kind == "text":
        bad.write_text("hello, this is no model\n" * 20)
    elif kind == "empty":
        bad.write_bytes(b"")
    elif kind == "folder":
        bad.mkdir()
    more = {
        "inspect": (),
        "audit": (workshop.data, "--out", tmp_path / "out"),
        "plan": ("--policy", workshop.policy, "--out", tmp_path / "out"),
        "build": (workshop.plan, "--out", tmp_path / "out", "--keys", tmp_path / "keys"),
    }
    refused(command, bad, *more[command], names=bad)


def test_an_unknown_operator(refused: Refused, tmp_path: Path) -> None:
    """An operator that the opset does not know is named."""
    model = _save_model(tmp_path / "bad.onnx", helper.make_node("Frobnicate", ["x"], ["y"], "node7"), [1, 4])
    refused("inspect", model, names="Frobnicate")


def test_an_operator_that_no_backend_has(refused: Refused, tmp_path: Path) -> None:
    """A custom operator may be legal ONNX, but no plan is made for what no device here can run."""
    node = helper.make_node("Frobnicate", ["x"], ["y"], "node7", domain="example.custom")
    model = _save_model(tmp_path / "bad.onnx", node, [1, 4], domain="example.custom")
    policy = write_policy(tmp_path / "policy.toml")
    refused("plan", model, "-p", policy, "-o", tmp_path / "plan.json", names="Frobnicate")


def test_a_dimension_without_a_value(refused: Refused, tmp_path: Path) -> None:
    """A free dimension that is not the batch is named with the option that gives it a value."""
    model = _save_model(tmp_path / "bad.onnx", helper.make_node("Relu", ["x"], ["y"]), ["batch", "length"])
    refused("inspect", model, names="--dim length=VALUE")


@pytest.mark.parametrize("text", ["length", "length=", "=4", "length=0", "length=-1", "length=four", "length=1.5"])
def test_a_dim_option_of_another_form(refused: Refused, workshop: Workshop, text: str) -> None:
    """``--dim`` takes NAME=VALUE with a positive number; anything else is quoted back."""
    refused("inspect", workshop.model, "--dim", text, names=f"--dim {text}")


def test_a_dim_that_the_model_has_not(refused: Refused, workshop: Workshop) -> None:
    """A misspelt dimension is named, with those that there are."""
    refused("inspect", workshop.model, "--dim", "bach=4", names="'bach'; free dimensions: 'batch'")


GOOD = np.zeros((60, 3, 12, 12), np.float32)
NAN = GOOD.copy()
NAN[41, 2, 3, 4] = np.nan
ARRAYS = {
    "shape": (GOOD[:, :2], "(60, 2, 12, 12)"),
    "rank": (GOOD[0, 0, 0], "(12,)"),
    "scalar": (GOOD[0, 0, 0, 0], "()"),
    "dtype": (GOOD.astype(np.float64), "float64"),
    "nan": (NAN, "NaN"),
    "empty": (GOOD[:0], ""),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_data_that_do_not_fit_an_audit(refused: Refused, workshop: Workshop, tmp_path: Path, kind: str) -> None:
    """Data of another shape or dtype, with NaN or without items are refused before the audit begins."""
    array, found = ARRAYS[kind]
    np.save(tmp_path / "bad.npy", array)
    outcome = refused("audit", workshop.model, tmp_path / "bad.npy", "--out", tmp_path / "out", names="bad.npy")
    assert found in outcome.err


@pytest.mark.parametrize("kind", ARRAYS)
def test_data_that_do_not_fit_a_run(refused: Refused, workshop: Workshop, tmp_path: Path, kind: str) -> None:
    """The same data are refused by a run, which writes nothing then."""
    array, _ = ARRAYS[kind]
    np.save(tmp_path / "bad.npy", array)
    out = ("--out", tmp_path / "outputs.npz")
    refused("run", workshop.bundle, tmp_path / "bad.npy", "--keys", workshop.keys, *out, names="input")


@pytest.mark.parametrize("kind", ["text", "objects", "missing", "suffix", "truncated"])
@pytest.mark.parametrize("command", ["audit", "run"])
def test_what_is_no_data(refused: Refused, workshop: Workshop, tmp_path: Path, command: str, kind: str) -> None:
    """Files that are no NumPy arrays of numbers are named; pickled objects are not opened."""
    bad = tmp_path / ("bad.csv" if kind == "suffix" else "bad.npz")
    if kind == "text":
        bad.write_text("1,2,3\n")
    elif kind == "objects":
        np.savez(bad, inputs=np.array([{"a": 1}], dtype=object))
    elif kind == "truncated":
        bad.write_bytes(workshop.data.read_bytes()[:-200])
    elif kind == "suffix":
        shutil.copy(workshop.data, bad)
    target = (workshop.bundle,) if command == "run" else (workshop.model,)
    more = ("--keys", workshop.keys) if command == "run" else ("--out", tmp_path / "out")
    refused(command, *target, bad, *more, names=bad)


def test_data_with_other_keys(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """Arrays that the model has no input for are named."""
    np.savez(tmp_path / "bad.npz", inputs=GOOD, more=GOOD)
    for command in (
        ("audit", workshop.model, tmp_path / "bad.npz", "--out", tmp_path / "out"),
        ("run", workshop.bundle, tmp_path / "bad.npz", "--keys", workshop.keys),
    ):
        assert "'more'" in refused(*command, names="bad.npz").err


def test_labels_of_another_number(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """Labels that do not belong to the items are refused."""
    np.savez(tmp_path / "bad.npz", inputs=GOOD, labels=np.zeros(59, np.int64))
    against = ("--against", workshop.model, "--record", tmp_path / "run.json")
    refused("run", workshop.bundle, tmp_path / "bad.npz", "--keys", workshop.keys, *against, names="labels")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("colour = 1", "colour"),
        ('threat_model = "none"', "threat_model"),
        ("[enclave", "policy.toml"),
        ("threat_model = 1\nthreat_model = 2", "policy.toml"),
    ],
)
def test_a_malformed_policy(refused: Refused, workshop: Workshop, tmp_path: Path, more: str, named: str) -> None:
    """An unknown field, a value out of range and a file that is no TOML are named."""
    policy = write_policy(tmp_path / "policy.toml", more=more)
    outcome = refused("plan", workshop.model, "-p", policy, "-o", tmp_path / "plan.json", names=policy)
    assert named in outcome.err


def test_a_policy_that_nothing_satisfies(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """The first line says that there is no plan, and one indented line says of each cut why it was refused."""
    policy = write_policy(
        tmp_path / "policy.toml", leakage="max = { ssim = -1.0 }", objective="allow_all_trusted = false"
    )
    arguments = ("plan", workshop.model, "-p", policy, "-a", workshop.audit, "-o", tmp_path / "plan.json")
    outcome = refused(*arguments, names="no placement of 'model' satisfies the policy", details=True)
    lines = outcome.err.splitlines()[1:]
    for cut in ("r0", "r1", "r2", "pooled"):
        assert [line for line in lines if f"-{cut}'" in line and "leaks too much" in line], cut
    assert "whole model in the enclave" in lines[-1]


def test_a_policy_whose_enclave_is_not_here(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """A policy that wants hardware gets no simulated enclave instead."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[[device]]\nname = "cloud"\n')
    refused("plan", workshop.model, "-p", policy, "-o", tmp_path / "plan.json", names="simulated")


def test_an_audit_of_another_model(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """A plan is not made from another model's audit."""
    onnx.save(chain_model(4).proto, tmp_path / "other.onnx")
    arguments = ("-p", workshop.policy, "-a", workshop.audit, "-o", tmp_path / "plan.json")
    refused("plan", tmp_path / "other.onnx", *arguments, names="audit")


def test_a_device_that_the_policy_has_not(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """A misspelt device is named by ``run``, and by ``plan``."""
    device = ("--device", "clod=grpc://127.0.0.1:9")
    refused("run", workshop.bundle, workshop.data, "--keys", workshop.keys, *device, names="'clod'")
    refused("plan", workshop.model, "-p", workshop.policy, "-o", tmp_path / "plan.json", *device, names="'clod'")


@pytest.mark.parametrize("text", ["cloud", "cloud=", "=grpc://127.0.0.1:9", "cloud=nowhere", "cloud=ftp://a:1"])
def test_a_device_option_of_another_form(refused: Refused, workshop: Workshop, text: str) -> None:
    """``--device`` takes NAME=URL; anything else is quoted back."""
    last = text.rpartition("=")[2] or text
    refused("run", workshop.bundle, workshop.data, "--keys", workshop.keys, "--device", text, names=last)


def test_a_server_that_does_not_answer(refused: Refused, workshop: Workshop) -> None:
    """A server that is not there is named with the device that it should be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    device = ("--device", f"cloud=grpc://127.0.0.1:{port}")
    outcome = refused("run", workshop.bundle, workshop.data, "--keys", workshop.keys, *device, names="device 'cloud'")
    assert f"127.0.0.1:{port}" in outcome.err


FILES = (
    "manifest.json",
    "manifest.sig",
    "plan.json",
    "structure.json",
    "annotated.onnx",
    "audit/audit.json",
    "part1/model.onnx",
    "part1/weights.sealed",
    "part1/part.json",
    "part2/model.onnx",
    "part2/part.json",
)


def test_the_list_of_a_bundles_files_is_complete(workshop: Workshop) -> None:
    """Every file of the bundle is flipped below."""
    assert sorted(FILES) == sorted(
        str(path.relative_to(workshop.bundle)) for path in workshop.bundle.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_in_a_bundle(refused: Refused, workshop: Workshop, tmp_path: Path, name: str) -> None:
    """One flipped byte in any file of a bundle, and no run begins; the file is named."""
    copy = tmp_path / "deploy"
    shutil.copytree(workshop.bundle, copy)
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(raw)
    outcome = refused("run", copy, workshop.data, "--keys", workshop.keys, names=copy)
    assert "manifest" in outcome.err or name in outcome.err


def test_a_bundle_without_its_keys(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """With another key store a bundle does not open."""
    refused("run", workshop.bundle, workshop.data, "--keys", tmp_path / "keys", names=workshop.bundle)


def test_a_bundle_for_another_model(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """A run is not compared with a model that the bundle was not built from, and nothing is recorded."""
    onnx.save(chain_model(4).proto, tmp_path / "other.onnx")
    more = ("--against", tmp_path / "other.onnx", "--record", tmp_path / "run.json")
    refused("run", workshop.bundle, workshop.data, "--keys", workshop.keys, *more, names="the bundle is for")


def test_a_plan_for_another_model(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """A bundle is not built from another model's plan, and no key is left behind."""
    onnx.save(chain_model(4).proto, tmp_path / "other.onnx")
    more = ("-a", workshop.audit, "-o", tmp_path / "deploy", "--keys", tmp_path / "keys")
    refused("build", tmp_path / "other.onnx", workshop.plan, *more, names="plan")


def test_a_malformed_plan(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """A plan that is none is named by ``build`` and by ``report``."""
    bad = tmp_path / "plan.json"
    bad.write_text('{"schema_version": 1}')
    refused("build", workshop.model, bad, "-o", tmp_path / "deploy", "--keys", tmp_path / "keys", names=bad)
    refused("report", "--plan", bad, "-o", tmp_path / "report.html", names=bad)


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port"])
def test_a_port_in_use(refused: Refused, workshop: Workshop, option: str) -> None:
    """``serve`` names a port that somebody else has, and stops what it had begun."""
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    other = {"--http-port": "--grpc-port", "--grpc-port": "--http-port"}[option]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused("serve", workshop.bundle / "part2", option, port, other, 0, names=f"port {port}")


def test_a_sealed_part_is_not_served(refused: Refused, workshop: Workshop) -> None:
    """The enclave's part has no weights outside the enclave: no server takes it."""
    refused("serve", workshop.bundle / "part1", "--http-port", 0, "--grpc-port", 0, names="part1")


def test_a_missing_part(refused: Refused, tmp_path: Path) -> None:
    """``serve`` names a folder that is not there."""
    refused("serve", tmp_path / "none", "--http-port", 0, "--grpc-port", 0, names=tmp_path / "none")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("inspect",), "MODEL"),
        (("inspect", "--bogus", "x.onnx"), "--bogus"),
        (("frobnicate",), "frobnicate"),
        (("--json",), "--json"),
        (("plan", "model.onnx"), "--policy"),
        (("run", "a", "b", "--batch", "0"), "--batch"),
        (("audit", "a", "b", "--quick", "great"), "great"),
        (("audit", "a", "b", "--seed", "-1"), "--seed"),
        (("serve", "a", "--http-port", "65536"), "--http-port"),
        (("run", "a", "b", "--record", "run.json"), "--record"),
        (("run", "a", "b", "--out", "outputs.csv"), "outputs.csv"),
        (("report",), "--plan"),
        (("report", "deploy", "--plan", "plan.json"), "--plan"),
        (("report", "no-such-folder"), "no-such-folder"),
        (("run", "no-such-folder", "x.npy"), "no-such-folder"),
    ],
)
def test_a_wrong_command_line(refused: Refused, arguments: tuple[str, ...], named: str) -> None:
    """Unknown commands and options, missing arguments and values out of range are named in one line."""
    refused(*arguments, names=named)


def test_an_unknown_attack(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """A misspelt attack is named, with those that there are."""
    pytest.importorskip("torch", reason="the extra 'leakage' is not installed")
    more = ("--attack", "rigde", "--out", tmp_path / "out")
    assert "ridge" in refused("audit", workshop.model, workshop.data, *more, names="rigde").err


def test_a_folder_that_cannot_be_made(refused: Refused, workshop: Workshop, tmp_path: Path) -> None:
    """Output below something that is a file is refused by every command that writes, naming the path."""
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "out"
    keys = ("--keys", workshop.keys)
    refused("plan", workshop.model, "-p", workshop.policy, "-a", workshop.audit, "-o", below, names=tmp_path / "file")
    refused("build", workshop.model, workshop.plan, "-a", workshop.audit, "-o", below, *keys, names=tmp_path / "file")
    refused("run", workshop.bundle, workshop.data, *keys, "-o", below.with_suffix(".npz"), names=tmp_path / "file")
    refused("audit", workshop.model, workshop.data, "--out", below, names=tmp_path / "file")
    refused("report", "--plan", workshop.plan, "-o", below, names=tmp_path / "file")
    new = ("-a", workshop.audit, "-o", tmp_path / "deploy", "--keys", below)
    refused("build", workshop.model, workshop.plan, *new, names=tmp_path / "file")


def _build_command(workshop: Workshop, out: Path, keys: Path) -> list[str]:
    arguments = ("build", workshop.model, workshop.plan, "-a", workshop.audit, "-o", out, "--keys", keys)
    return [sys.executable, *START, *map(str, arguments)]


def _check_refused_build(done: subprocess.CompletedProcess[str], out: Path, keys: Path) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"sinian: error: bundle {out}: cannot be written (")
    assert done.stderr.count("\n") == 1
    assert list(out.parent.iterdir()) == []
    assert list((keys / "weights").iterdir()) == []


def _keep_files_small() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def test_a_disk_that_fills_while_building(workshop: Workshop, tmp_path: Path) -> None:
    """When writing fails half-way, ``build`` says so in one line and leaves neither files nor a key behind."""
    disk, keys = tmp_path / "disk", tmp_path / "keys"
    disk.mkdir()
    command = _build_command(workshop, disk / "deploy", keys)
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=_keep_files_small)
    _check_refused_build(done, disk / "deploy", keys)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_full(workshop: Workshop, tmp_path: Path) -> None:
    """The same on a disk that is really full."""
    disk, keys = tmp_path / "disk", tmp_path / "keys"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=False).returncode:  # noqa: S607 - the system's mount
        pytest.skip("this machine does not allow mounting")
    try:
        command = _build_command(workshop, disk / "deploy", keys)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        _check_refused_build(done, disk / "deploy", keys)
        assert "No space left on device" in done.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607 - the system's umount
