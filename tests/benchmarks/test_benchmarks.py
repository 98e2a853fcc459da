"""The benchmarks run, and what they write is right."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
_QUICK = ("split_latency", "parallelism", "cost_model", "copies", "import_time", "exact_masks", "mask_costs")


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests import the benchmarks' modules as the benchmarks themselves do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run seven benchmarks quickly, as one command does, and return the folder that they wrote."""
    folder = tmp_path_factory.mktemp("figures")
    only = [part for name in _QUICK for part in ("--only", name)]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setattr(sys, "argv", ["run_all.py", "--out", str(folder), "--quick", *only])
        import run_all

        run_all.main()
    return folder


def _record(written: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((written / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", _QUICK)
def test_each_benchmark_leaves_figures_with_their_origin(written: Path, name: str) -> None:
    """A benchmark's JSON names machine, load and versions, says that it was quick, and judges every bar."""
    record = _record(written, name)
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
    for row in _record(written, "split_latency")["rows"]:
        assert row["ratio"] == pytest.approx(row["split, ms"] / row["sum, ms"])
        assert row["part 1 bare, ms"] > 0
        assert row["part 2 bare, ms"] > 0


def test_the_error_of_a_prediction_is_that_of_the_figures_beside_it(written: Path) -> None:
    """Each case's error is its prediction over its measurement by the yardstick, the bar the median of their sizes."""
    record = _record(written, "cost_model")
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
        "## Exact masks",
        "## Masks on the trusted side",
    ]
    assert page.count("Quick run") == 7
    assert "simulated" in page


def test_a_tensor_crosses_in_two_cipher_passes_and_one_allocation(written: Path) -> None:
    """No whole copy of a tensor is made on the way beyond the array that the receiver hands on."""
    for row in _record(written, "copies")["rows"]:
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


def test_what_masking_costs_is_told_with_its_preparation(written: Path) -> None:
    """Trusted work is the sum of its kinds, beside preparation, stock and bytes; bars hold the last row's ratios."""
    record = _record(written, "exact_masks")
    assert {row["network"] for row in record["rows"]} == {"ResNet-50"}
    for row in record["rows"]:
        assert min(row[f"{kind}, ms"] for kind in ("whole", "trusted", "device", "preparation")) > 0
        # Medians of two turns are their means, which add up as the turns themselves do.
        kinds = sum(row[f"{kind}, ms"] for kind in ("mask", "unmask", "verify", "segments"))
        assert row["trusted, ms"] == pytest.approx(kinds)
        ratio, low, high = map(float, re.findall(r"[\d.]+", row["whole / trusted"]))
        assert ratio == pytest.approx(row["whole, ms"] / row["trusted, ms"], abs=0.006)
        assert 0 < low <= ratio <= high
        assert row["stock, MiB"] > 0
        assert row["sent, MiB"] + row["received, MiB"] <= row["layer by layer, MiB"]
    assert record["rows"][0]["on devices"] == "every layer: 54 of 54"
    assert record["rows"][0]["inferences a request"] == 1
    ratio_bar, bytes_bar = record["bars"]
    assert "whole network over the trusted side's work" in ratio_bar["what"]
    assert "bytes saved against layer by layer, %" in bytes_bar["what"]
    last = record["rows"][-1]
    assert ratio_bar["measured"] == pytest.approx(last["whole, ms"] / last["trusted, ms"])
    crossing = last["sent, MiB"] + last["received, MiB"]
    assert bytes_bar["measured"] == pytest.approx(100 - 100 * crossing / last["layer by layer, MiB"])


def test_every_mask_has_its_cost_and_its_bar(written: Path) -> None:
    """Each mask's row adds up against Part 1 without one, and its bar holds the percentage that it adds."""
    record = _record(written, "mask_costs")
    rows = {(row["items a request"], row["mask"]): row for row in record["rows"]}
    assert len(rows) == len(record["rows"])
    assert {(items, mask) for items in (1, 16) for mask in ("gaussian", "dropout", "patch_shuffle")} <= rows.keys()
    bars = {bar["what"]: bar["measured"] for bar in record["bars"]}
    assert bars == {
        f"demo, requests of {items}, {mask}: added to Part 1, %": row["added, %"]
        for (items, mask), row in rows.items()
        if mask != "random_projection:structured=0"
    }
    for row in rows.values():
        assert min(row["Part 1, ms"], row["drawing, ms"], row["crosses, KiB"]) > 0
        drawn = 100 * row["drawing, ms"] / row["Part 1, ms"]
        assert row["added with drawing, %"] == pytest.approx(row["added, %"] + drawn)
        assert re.fullmatch(r"-?[\d.]+ to -?[\d.]+", row["interval, %"])
    assert rows[1, "bottleneck"]["crosses, KiB"] < rows[1, "gaussian"]["crosses, KiB"]
    assert rows[16, "gaussian"]["crosses, KiB"] == 16 * rows[1, "gaussian"]["crosses, KiB"]


def test_passes_are_timed_only_where_they_agree() -> None:
    """The benchmark of the passes has a figure for each form, of results that it compared."""
    import exact_kernels

    outcome = exact_kernels.run(quick=True)
    assert {row["pass"] for row in outcome.rows} == {"mask", "unmask", "weigh, 3 x 3"}
    assert all(row["numpy, ns a number"] > 0 for row in outcome.rows)
