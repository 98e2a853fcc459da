"""The benchmarks run, and what they write is right."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
_QUICK = ("split_latency", "parallelism", "cost_model", "copies", "import_time")


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests import the benchmarks' modules as the benchmarks themselves do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run five benchmarks quickly, in one command, and return the folder that they wrote."""
    folder = tmp_path_factory.mktemp("figures")
    only = [part for name in _QUICK for part in ("--only", name)]
    command = [sys.executable, str(BENCHMARKS / "run_all.py"), "--out", str(folder), "--quick", *only]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    return folder


@pytest.mark.parametrize("name", _QUICK)
def test_each_benchmark_leaves_figures_with_their_origin(written: Path, name: str) -> None:
    """A benchmark's JSON names machine, load and versions, says that it was quick, and judges every bar."""
    record = json.loads((written / f"{name}.json").read_text())
    assert record["name"] == name
    assert record["quick"] is True
    assert record["machine"]
    assert len(record["load_average"]) == 3
    assert set(record["versions"]) >= {"siniantrust", "onnxruntime"}
    assert record["rows"]
    for bar in record["bars"]:
        good = bar["measured"] <= bar["limit"] if bar["at_most"] else bar["measured"] >= bar["limit"]
        assert bar["met"] is good


def test_the_latency_ratio_is_that_of_the_figures_beside_it(written: Path) -> None:
    """Each row's ratio is the split's median over the sum's, and its parts are slower than nothing."""
    for row in json.loads((written / "split_latency.json").read_text())["rows"]:
        assert row["ratio"] == pytest.approx(row["split, ms"] / row["sum, ms"])
        assert row["part 1 bare, ms"] > 0
        assert row["part 2 bare, ms"] > 0


def test_the_error_of_a_prediction_is_that_of_the_figures_beside_it(written: Path) -> None:
    """Each case's error is its prediction over its measurement by the yardstick, the bar the median of their sizes."""
    record = json.loads((written / "cost_model.json").read_text())
    errors = [
        row["predicted, ms"] * row["machine, now over then"] / row["measured, ms"] * 100 - 100 for row in record["rows"]
    ]
    assert [row["error, %"] for row in record["rows"]] == pytest.approx(errors)
    assert record["bars"][0]["measured"] == pytest.approx(np.median(np.abs(errors)))
    assert record["bars"][1]["measured"] == len(errors) == 2


def test_the_page_holds_every_benchmark_that_was_run(written: Path) -> None:
    """The summary has a table for each JSON and says that a quick run gives no verdict."""
    page = (written / "README.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Split latency",
        "## Parallelism",
        "## Predicted against measured latency",
        "## Copies through shared memory",
        "## Import time",
    ]
    assert page.count("Quick run") == 5
    assert "simulated" in page


def test_a_tensor_crosses_in_two_cipher_passes_and_one_allocation(written: Path) -> None:
    """No whole copy of a tensor is made on the way beyond the array that the receiver hands on."""
    for row in json.loads((written / "copies.json").read_text())["rows"]:
        assert row["cipher passes, sender + receiver"] == "1 + 1"
        assert 1 <= row["allocated, tensors"] < 1.5


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "mobilenet_v2"])
def test_networks_have_their_cuts_and_finite_outputs(name: str) -> None:
    """Each network has its five or more cuts, and activations that neither die nor explode."""
    import networks

    import siniantrust as st
    from siniantrust import graph, odla

    network = networks.NETWORKS[name](32)
    model = st.load(network.proto)
    found = {cut.tensors for cut in graph.enumerate_cuts(model).cuts}
    assert len(network.cuts) >= 5
    assert {(tensor,) for tensor in network.cuts} <= found
    (part,) = graph.split(model, ())
    run = odla.open_device(odla.DeviceSpec("test")).compile(part).run
    (scores,) = run({"input": np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)}).values()
    assert 0.1 < scores.std() < 10


@pytest.mark.parametrize("nodes", [100, 103, 1000])
def test_grown_networks_have_the_size_asked_for(nodes: int) -> None:
    """Chains and residual networks have exactly as many operators as asked for and pass ONNX's checker."""
    import networks

    for make in (networks.make_chain, networks.make_residual):
        proto = make(nodes)
        onnx.checker.check_model(proto, full_check=True)
        assert len(proto.graph.node) == nodes


def test_contestants_take_turns_and_the_warm_up_does_not_count() -> None:
    """Every turn calls every contestant once, in an order that reverses, and only counted turns are returned."""
    import timing

    calls: list[str] = []
    found = timing.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, turns=2, warm_up=1)
    assert "".join(calls) == "abbaab"
    assert {name: len(values) for name, values in found.items()} == {"a": 2, "b": 2}


def test_the_interval_of_a_ratio_holds_the_ratio() -> None:
    """Twice as slow is found to be twice as slow, with an interval around it."""
    import timing

    values = np.random.default_rng(0).uniform(1, 1.1, 50)
    low, high = timing.ratio_interval(2 * values, values)
    assert low <= 2 <= high
    assert high - low < 0.2


def test_the_tpm_of_the_benchmark_is_emulated_and_says_so() -> None:
    """Each step of attestation and sealing has its time, and the promise names the emulator."""
    if shutil.which("swtpm") is None:
        pytest.skip("not installed: swtpm")
    import tpm

    outcome = tpm.run(quick=True)
    assert {row["step"] for row in outcome.rows} >= {"attest: quote and appraise", "seal", "unseal"}
    assert all(row["median, ms"] > 0 for row in outcome.rows)
    assert "emulated" in outcome.bars[0].what


def test_every_row_of_an_enclave_says_what_it_is_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each provider has a time for each step with its provenance; what cannot be launched here is named instead."""
    import enclaves

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    outcome = enclaves.run(quick=True)
    found = {(row["provider"], row["provenance"]) for row in outcome.rows}
    assert found >= {("process", "simulated"), ("service", "simulated")}
    assert "hardware" not in {provenance for _, provenance in found}
    steps = {row["step"] for row in outcome.rows if row["provider"] == "process"}
    assert steps >= {"launch", "load Part 1", "call, empty", "call, Part 1", "seal 32 bytes", "unseal 32 bytes"}
    assert all(row["median, ms"] > 0 for row in outcome.rows)
    assert any("`optee` was not measured" in remark and "not set up" in remark for remark in outcome.remarks)
    if shutil.which("swtpm") is not None:
        assert ("service, TPM evidence", "emulated") in found
        assert "emulated" in outcome.bars[0].what


@pytest.mark.slow
def test_what_masking_costs_is_told_with_its_preparation() -> None:
    """Each network's trusted work is the sum of its kinds, and preparation, stock and bytes stand beside it."""
    import exact_masks

    outcome = exact_masks.run(quick=True)
    assert len(outcome.rows) == 6
    for row in outcome.rows:
        assert min(row[f"{kind}, ms"] for kind in ("whole", "trusted", "device")) > 0
        assert (row["stock, MiB"] > 0) == (row["sent, MiB"] > 0)
        assert row["sent, MiB"] + row["received, MiB"] <= row["layer by layer, MiB"]
    every = [row for row in outcome.rows if row["on devices"].startswith("every")]
    assert all(row["preparation, ms"] > 0 for row in every)


def test_passes_are_timed_only_where_they_agree() -> None:
    """The benchmark of the passes has a figure for each form, of results that it compared."""
    import exact_kernels

    outcome = exact_kernels.run(quick=True)
    assert {row["pass"] for row in outcome.rows} == {"mask", "unmask", "weigh, 3 x 3"}
    assert all(row["numpy, ns a number"] > 0 for row in outcome.rows)
