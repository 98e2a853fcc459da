from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import START, Command, Workshop, write_policy
from planner_models import chain_model

import siniantrust
from siniantrust.bundle import KeyStore, load_bundle
from siniantrust.leakage import load_audit
from siniantrust.odla.oip import Server
from siniantrust.planner import load_plan

COMMANDS = (
    "inspect",
    "mask",
    "audit",
    "plan",
    "build",
    "run",
    "serve",
    "export",
    "report",
    "devices",
    "doctor",
    "verify",
    "demo",
)


def _json(text: str) -> Any:
    """Parse, and refuse what JSON does not have."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_without_arguments_the_commands_are_listed(sinian: Command) -> None:
    """``sinian`` alone is a question, answered with the list of commands in the order of the stages."""
    found = sinian()
    assert (found.code, found.err) == (0, "")
    places = [found.out.index(f"\n  {command} ") for command in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(sinian: Command, command: str) -> None:
    """``--help`` says what a command does and explains each of its options."""
    found = sinian(command, "--help")
    assert (found.code, found.err) == (0, "")
    assert f"Usage: sinian {command}" in found.out
    options = re.findall(r"^  (?:-\w, )?--(\S+)(.*(?:\n {6,}.*)*)", found.out, flags=re.MULTILINE)
    assert options
    for name, explained in options:
        assert re.search(r"[a-z]{3}", explained), name


def test_the_version_is_told(sinian: Command) -> None:
    """``--version`` prints one line."""
    assert sinian("--version").out == f"sinian {siniantrust.__version__}\n"


def test_inspect_shows_interface_costs_and_cuts(sinian: Command, workshop: Workshop) -> None:
    """``inspect`` names inputs, outputs and every useful cut; ``--all`` the fusable ones as well."""
    short, long = sinian("inspect", workshop.model), sinian("inspect", workshop.model, "--all")
    assert short.code == long.code == 0
    assert "image float32" in short.out
    assert "-r0 " in short.out
    assert "-c0 " not in short.out
    assert "-c0 " in long.out


def test_inspect_gives_json(sinian: Command, workshop: Workshop) -> None:
    """``inspect --json`` is one JSON document and nothing else."""
    found = sinian("inspect", workshop.model, "--json")
    described = _json(found.out)
    assert (described["nodes"], len(described["sha256"])) == (len(workshop.deployment.model.nodes), 64)


def test_a_free_dimension_takes_a_value(sinian: Command, workshop: Workshop) -> None:
    """``--dim`` fixes a dimension that the model leaves free."""
    described = _json(sinian("inspect", workshop.model, "--dim", "batch=4", "--json").out)
    assert described["inputs"][0]["shape"] == [4, 3, 12, 12]


def test_audit_plan_build_run_report(sinian: Command, tmp_path: Path) -> None:
    """The whole path by hand: each command's result is what the next one takes, and all say where they wrote it."""
    pytest.importorskip("torch", reason="the extra 'leakage' is not installed")
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    model, data, audit, plan = (tmp_path / name for name in ("model.onnx", "data.npz", "audit", "plan.json"))
    bundle, outputs, record, page = (tmp_path / name for name in ("deploy", "outputs.npz", "run.json", "report.html"))
    onnx.save(chain_model(6).proto, model)
    generator = np.random.default_rng(0)
    np.savez(data, inputs=generator.standard_normal((60, 8)).astype(np.float32), labels=generator.integers(0, 8, 60))
    policy = write_policy(
        tmp_path / "policy.toml",
        leakage="max = { nmse = 1.0 }\nrequire_converged = false",
        objective="allow_all_trusted = false",
    )
    keys = ("--keys", tmp_path / "keys")
    weak = ("--quick", "--attack", "ridge", "--max-cuts", 1)
    for arguments, said in (
        (("audit", model, data, "--out", audit, *weak), f"written to {audit}"),
        (("plan", model, "-p", policy, "-a", audit, "-o", plan), f"plan written to {plan}"),
        (("build", model, plan, "-a", audit, "-o", bundle, *keys), f"written to {bundle}"),
        (
            ("run", bundle, data, *keys, "-o", outputs, "--against", model, "--record", record, "--batch", 8),
            f"outputs written to {outputs}",
        ),
        (("report", bundle, "--run", record, "-o", page), f"report written to {page}"),
    ):
        found = sinian(*arguments)
        assert (found.code, found.err) == (0, ""), found
        assert said in found.out
        if arguments[0] == "plan":
            assert re.search(r"predicted term +where +latency +how it is known", found.out)
            assert "ONNX Runtime profile on CPUExecutionProvider" in found.out
        if arguments[0] == "run":
            assert re.search(r"term +where +predicted +measured", found.out)
            terms = ("cross into part 1 and back", "compute part 1", "move to the device and back", "compute part 2")
            for term in (*terms, "whole request"):
                assert re.search(rf"^ *{term} .* \d+\.\d+ ms +\d+\.\d+ ms *$", found.out, flags=re.MULTILINE), term
    assert load_plan(plan).audit_id == load_audit(audit).id
    assert _json(record.read_text())["count"] == 60
    assert _json(record.read_text())["max_abs_difference"] <= 1e-5
    with np.load(outputs) as saved:
        assert [array.shape for array in saved.values()] == [(60, 8)]
    assert page.read_text().lower().startswith("<!doctype html>")


def test_plan_gives_json_and_measured_costs(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """``plan --json`` prints what it writes."""
    out = tmp_path / "plan.json"
    found = sinian("plan", workshop.model, "--policy", workshop.policy, "--audit", workshop.audit, "-o", out, "--json")
    assert (found.code, found.err) == (0, "")
    assert _json(found.out) == _json(out.read_text())
    assert load_plan(out).prediction.latency_s > 0


def test_plan_explains_every_node(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """``plan --explain`` shows runs of nodes, writes every node beside the plan, and the report takes that up."""
    out, page = tmp_path / "plan.json", tmp_path / "report.html"
    arguments = ("plan", workshop.model, "--policy", workshop.policy, "--audit", workshop.audit, "-o", out, "--explain")
    found = sinian(*arguments)
    assert (found.code, found.err) == (0, "")
    explained = _json((tmp_path / "explanation.json").read_text())
    assert [row["node"] for row in explained["nodes"]] == [node.name for node in workshop.deployment.model.nodes]
    for run in explained["runs"]:
        assert any(run["first"] in line and run["reasons"][0] in line for line in found.out.splitlines())
    both = _json(sinian(*arguments, "--json").out)
    assert both == {"plan": _json(out.read_text()), "explanation": _json((tmp_path / "explanation.json").read_text())}
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    told = sinian("report", "--plan", out, "--explanation", tmp_path / "explanation.json", "-o", page)
    assert (told.code, told.err) == (0, "")
    assert "operators is where it is</summary>" in page.read_text()


def test_build_gives_json(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """``build --json`` names the bundle, its version and its files."""
    out, keys = tmp_path / "deploy", tmp_path / "keys"
    found = sinian("build", workshop.model, workshop.plan, "-a", workshop.audit, "-o", out, "--keys", keys, "--json")
    assert (found.code, found.err) == (0, "")
    built = load_bundle(out, keystore=KeyStore(keys))
    names = {"bundle_id": built.id, "lineage": built.manifest.lineage, "version": 1}
    assert _json(found.out) == {**names, "path": str(out), "files": sorted(built.manifest.files)}


def test_run_gives_json_and_the_uncut_models_outputs(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """``run`` writes the outputs of the uncut model, whatever the batch, and says that the enclave is simulated."""
    outputs = tmp_path / "outputs.npz"
    keys = ("--keys", workshop.keys)
    found = sinian("run", workshop.bundle, workshop.data, *keys, "--out", outputs, "--batch", 7, "--json")
    assert (found.code, found.err) == (0, "")
    assert _json(found.out) == {
        "count": 60,
        "outputs": {"scores": [60, 5]},
        "enclave": "process",
        "provenance": "simulated",
    }
    with np.load(workshop.data) as data, np.load(outputs) as saved:
        expected = workshop.deployment.expected({"image": data["inputs"]})["scores"]
        np.testing.assert_allclose(saved["scores"], expected, atol=1e-5)


def test_run_gives_predicted_and_measured_terms_as_json(sinian: Command, workshop: Workshop) -> None:
    """With ``--against``, every term has both figures, and the last one is the whole request."""
    options = ("--keys", workshop.keys, "--against", workshop.model, "--json")
    found = _json(sinian("run", workshop.bundle, workshop.data, *options).out)
    plan = load_plan(workshop.plan)
    assert [term["what"] for term in found["terms"][:-1]] == [term.what for term in plan.prediction.terms]
    assert found["terms"][-1] == {
        "what": "whole request",
        "where": "",
        "predicted_s": plan.prediction.latency_s,
        "measured_s": found["run"]["measured"]["latency_s"],
    }
    assert all(term["measured_s"] is not None for term in found["terms"])


def test_run_takes_a_bare_array(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """A ``.npy`` file is the model's one input."""
    np.save(tmp_path / "x.npy", np.zeros((3, 3, 12, 12), np.float32))
    found = sinian("run", workshop.bundle, tmp_path / "x.npy", "--keys", workshop.keys)
    assert (found.code, found.err) == (0, "")
    assert found.out == "3 items through the process enclave (simulated)\n"


def test_run_leaves_out_what_accompanies_an_audits_items(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """Labels, marks, private labels and transcripts in a file of data are not taken for inputs of the model."""
    pictures, marks = np.zeros((3, 3, 12, 12), np.float32), np.zeros(3, np.int64)
    beside = {"labels": marks, "heldout": marks == 0, "attribute": marks, "transcript": np.array(["said"] * 3)}
    np.savez(tmp_path / "data.npz", allow_pickle=True, image=pictures, sample_rate=np.array(8000), **beside)
    found = sinian("run", workshop.bundle, tmp_path / "data.npz", "--keys", workshop.keys)
    assert (found.code, found.err) == (0, "")


def test_run_writes_a_timeline_and_serves_metrics(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """``--trace`` leaves a Chrome trace of every request, and ``--metrics-port`` says where it serves meanwhile."""
    pytest.importorskip("prometheus_client", reason="the extra 'observe' is not installed")
    np.save(tmp_path / "x.npy", np.zeros((3, 3, 12, 12), np.float32))
    options = ("--keys", workshop.keys, "--trace", tmp_path / "trace.json", "--metrics-port", 0)
    found = sinian("run", workshop.bundle, tmp_path / "x.npy", *options)
    assert (found.code, found.err) == (0, "")
    assert re.match(r"metrics at http://127.0.0.1:\d+/metrics\n", found.out)
    assert "timeline written to" in found.out
    events = _json((tmp_path / "trace.json").read_text())["traceEvents"]
    calls = [(event["args"]["part"], event["args"]["request"]) for event in events if event["ph"] == "X"]
    assert sorted(calls) == [(part, request) for part in ("part1", "part2") for request in range(3)]


def test_run_reaches_a_server(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """``--device`` runs a part at a server."""
    np.save(tmp_path / "x.npy", np.zeros((3, 3, 12, 12), np.float32))
    with Server(workshop.bundle / "part2") as served:
        device = f"cloud={served.grpc_url}"
        found = sinian("run", workshop.bundle, tmp_path / "x.npy", "--keys", workshop.keys, "--device", device)
    assert (found.code, found.err) == (0, "")


def test_report_takes_a_plan_alone(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """``report --plan`` needs no bundle."""
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    found = sinian("report", "--plan", workshop.plan, "-o", tmp_path / "report.html")
    assert (found.code, found.err) == (0, "")
    assert (tmp_path / "report.html").is_file()


def test_devices_lists_backends_and_devices(sinian: Command) -> None:
    """``devices`` shows what is here, for people and for programs."""
    found = sinian("devices")
    assert (found.code, found.err) == (0, "")
    assert "onnxruntime" in found.out
    listed = _json(sinian("devices", "--json").out)
    assert listed["backends"]["onnxruntime"] == "ready"
    assert "cpu" in [device["name"] for device in listed["devices"]]


def test_doctor_sets_up_only_what_needs_it(sinian: Command) -> None:
    """``doctor --setup`` of a provider that needs nothing is an error that names those that do."""
    found = sinian("doctor", "--setup", "process")
    assert found.code == 2
    assert found.err.strip().endswith("enclave provider 'process' needs no setup; those that do: optee")


def test_doctor_says_what_is_missing(sinian: Command) -> None:
    """``doctor`` ends with 0 where the process enclave has every protection and with 1 where it lacks one."""
    found = sinian("doctor", "--json")
    told = _json(found.out)
    assert found.code == (1 if told["missing_protections"] else 0)
    assert {"process", "seccomp", "landlock", "tpm"} <= {check["name"] for check in told["checks"]}
    provenances = {(offer["role"], offer["name"]): offer["provenance"] for offer in told["providers"]}
    assert provenances["enclave", "process"] == "simulated"
    assert provenances["enclave", "service"] is None
    shown = sinian("doctor")
    assert shown.code == found.code
    for role, name in provenances:
        assert re.search(rf"^ *{name} +{role} ", shown.out, flags=re.MULTILINE)


def test_a_pipe_gets_no_colours_and_no_bars(workshop: Workshop) -> None:
    """In a pipe there are no escape codes and no progress, and standard error is empty."""
    for arguments in (("inspect", str(workshop.model)), ("--help",), ("devices",)):
        done = subprocess.run([sys.executable, *START, *arguments], capture_output=True, check=True)
        assert done.stderr == b""
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", done.stdout)


def test_a_name_is_shown_as_it_is(sinian: Command, workshop: Workshop, tmp_path: Path) -> None:
    """Paths that look like markup, colours or emoji codes are printed unchanged."""
    out = tmp_path / "[red]:smile:" / "x.npz"
    found = sinian("run", workshop.bundle, workshop.data, "--keys", workshop.keys, "--out", out)
    assert f"outputs written to {out}\n" in found.out


def test_a_reader_that_goes_away_is_no_error(workshop: Workshop) -> None:
    """``sinian ... | head -1`` ends well and complains of nothing."""
    command = [sys.executable, *START, "inspect", str(workshop.model), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_an_interrupt_ends_a_command_in_one_line(workshop: Workshop, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a run gives exit code 130 and one line, and takes the enclave with it."""
    fifo = tmp_path / "wait.npy"
    os.mkfifo(fifo)
    command = [sys.executable, *START, "run", str(workshop.bundle), str(fifo), "--keys", str(workshop.keys)]
    # The children of a job in a shell's background ignore interrupts from birth.
    command = ["env", "--default-signal=INT", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # The session is open when the data are read, and then the pipe has a reader.
        writer = _open_for_reader(fifo, process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        try:
            _, complaint = process.communicate(timeout=20)
        finally:
            process.kill()
            os.close(writer)
    assert (process.returncode, complaint) == (130, "sinian: error: interrupted\n")
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def _open_for_reader(fifo: Path, reader: subprocess.Popen[str]) -> int:
    """Open a pipe to write as soon as ``reader`` has opened it to read."""
    while reader.poll() is None:
        with contextlib.suppress(OSError):
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.01)
    raise AssertionError(reader.communicate())


def test_export_writes_a_triton_repository(workshop: Workshop, sinian: Command, tmp_path: Path) -> None:
    """The command names what it wrote and how it is served; a folder in use and a missing form are one line each."""
    out = tmp_path / "models"
    done = sinian("export", "--triton", workshop.bundle, out, "--keys", workshop.keys, "--kserve", "pvc://models")
    assert done.code == 0
    assert done.out == f"part2 written to {out}; serve with: tritonserver --model-repository={out}\n"
    assert {path.name for path in out.iterdir()} == {"part2", "inference-service.yaml"}
    again = sinian("export", "--triton", workshop.bundle, out, "--keys", workshop.keys)
    assert (again.code, again.out) == (2, "")
    assert (
        again.err == f"sinian: error: repository {out}: the folder holds something; choose another path or empty it\n"
    )
    formless = sinian("export", workshop.bundle, tmp_path / "other", "--keys", workshop.keys)
    assert formless.err == "sinian: error: export: name the form, which is --triton\n"
    listed = sinian("export", "--triton", workshop.bundle, tmp_path / "other", "--keys", workshop.keys, "--json")
    assert json.loads(listed.out) == {"path": str(tmp_path / "other"), "models": ["part2"]}
