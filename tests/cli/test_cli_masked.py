"""Exact masks from the command line: plan, build, run and report."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Command, Outcome, write_policy
from onnx import TensorProto, helper, numpy_helper

from siniantrust.planner import load_plan

_CHANNELS = 384


@dataclass(frozen=True)
class _Bench:
    folder: Path
    policy: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def data(self) -> Path:
        return self.folder / "data.npz"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> _Bench:
    """Return a network of which two layers are worth a pad many times over: 1,728 products a number that crosses.

    Another one, over three channels and before what only the enclave computes, is not.
    """
    folder = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.2, (_CHANNELS, 3, 1, 1)),
        "w2": rng.normal(0, 0.02, (_CHANNELS, _CHANNELS, 3, 3)),
        "w3": rng.normal(0, 0.02, (_CHANNELS, _CHANNELS, 3, 3)),
        "w4": rng.normal(0, 0.1, (_CHANNELS, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="narrow"),
        helper.make_node("Sigmoid", ["c1"], ["r1"], name="narrow.sigmoid"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="wide", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="wide.relu"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], name="deep", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c3"], ["r3"], name="deep.relu"),
        helper.make_node("GlobalAveragePool", ["r3"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "w4"], ["y"], name="dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    pictures = rng.normal(size=(48, 3, 4, 4)).astype(np.float32)
    np.savez(folder / "data.npz", inputs=pictures, labels=np.arange(48) % 5, heldout=np.arange(48) >= 32)
    return _Bench(folder, write_policy(folder / "policy.toml"))


def test_a_network_is_planned_built_run_and_reported_under_pads(bench: _Bench, sinian: Command, tmp_path: Path) -> None:
    """The layers that are worth it run under pads, the answers stay near the uncut model's, and the report says all.

    One ``sinian serve`` over the bundle computes them, too, by either protocol, to the same bits.
    """
    planned = sinian(
        *("plan", bench.model, "--policy", bench.policy, "--mask", "exact", "--explain"),
        *("--out", tmp_path / "plan.json", "--profiles", tmp_path / "profiles"),
    )
    assert (planned.code, planned.err) == (0, "")
    assert "stays inside: narrow: Conv: " in planned.out
    assert "preparing pads takes" in planned.out
    plan = load_plan(tmp_path / "plan.json")
    assert plan.masking is not None
    assert [layer.node for layer in plan.masking.layers] == ["wide", "deep"]
    built = sinian(
        *("build", bench.model, tmp_path / "plan.json", "--data", bench.data),
        *("--out", tmp_path / "deploy", "--keys", tmp_path / "keys"),
    )
    assert (built.code, built.err) == (0, "")
    ran = sinian(
        *("run", tmp_path / "deploy", bench.data, "--keys", tmp_path / "keys", "--against", bench.model),
        *("--record", tmp_path / "run.json", "--out", tmp_path / "here.npz", "--json"),
    )
    assert (ran.code, ran.err) == (0, "")
    record = json.loads(ran.out)["run"]
    assert record["max_abs_difference"] < 0.1
    assert record["masked"]["refused"] == 0
    assert record["masked"]["quantised"]["items"] == 16
    reported = sinian(
        *("report", tmp_path / "deploy", "--run", tmp_path / "run.json"),
        *("--explanation", tmp_path / "explanation.json", "--out", tmp_path / "report.html"),
    )
    assert (reported.code, reported.err) == (0, "")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for sentence in (
        "Nothing leaves the enclave in the clear but the answer",
        "Layers under one-time pads",
        "uniform noise",
        "prepare pads, in idle time",
        "Answers under pads are checked in the enclave: a wrong one passes with at most 2^-40.",
        "<code>narrow</code> stays inside",
        "of 16 held-out inputs",
        "no cut, 2 padded",
    ):
        assert sentence in page, sentence
    with _serving(tmp_path / "deploy") as (line, urls):
        assert line.startswith("serving part1-exchange0 version ")
        assert ", part1-exchange1 version " in line
        for url in urls:
            there = sinian(
                *("run", tmp_path / "deploy", bench.data, "--keys", tmp_path / "keys", "--device", f"cloud={url}"),
                *("--out", tmp_path / "there.npz"),
            )
            assert (there.code, there.err) == (0, "")
            with np.load(tmp_path / "here.npz") as here, np.load(tmp_path / "there.npz") as found:
                np.testing.assert_array_equal(found["y"], here["y"])


@contextmanager
def _serving(bundle: Path) -> Iterator[tuple[str, list[str]]]:
    """Run ``sinian serve`` in a process of its own; yield what it says, and its addresses."""
    pytest.importorskip("grpc", reason="the extra 'serve' is not installed")
    pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
    command = [sys.executable, "-c", "import sys; from siniantrust.cli import main; sys.exit(main())", "serve"]
    options = ["--http-port", "0", "--grpc-port", "0", "--threads", "1"]
    with subprocess.Popen([*command, str(bundle), *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield line, re.findall(r"(?:grpc|http)://[\d.]+:\d+", line)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_a_plan_with_pads_is_not_built_without_data(
    bench: _Bench, sinian: Command, refused: Callable[..., Outcome], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Building says in one line that data are missing, and leaves nothing behind."""
    folder = tmp_path_factory.mktemp("plan")
    out, profiles = folder / "plan.json", folder / "profiles"
    assert (
        sinian("plan", bench.model, "-p", bench.policy, "--mask", "exact", "-o", out, "--profiles", profiles).code == 0
    )
    keys = folder / "keys"
    refused(
        "build", bench.model, out, "--out", folder / "deploy", "--keys", keys, names="give data to quantise them on"
    )
    assert not (folder / "deploy").exists()


def test_optee_is_refused_with_masks(
    bench: _Bench, refused: Callable[..., Outcome], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A policy with an enclave that keeps nothing is refused before anything is measured."""
    folder = tmp_path_factory.mktemp("optee")
    policy = folder / "policy.toml"
    policy.write_text('[enclave]\nprovider = "optee"\naccept = ["emulated"]\n[[device]]\nname = "cloud"\n')
    refused("plan", bench.model, "-p", policy, "--mask", "auto", "-o", folder / "plan.json", names="'optee' is refused")
