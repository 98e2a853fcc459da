"""Small models with made-up audits, planned and built into bundles that really run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from planner_models import chain_model, make_audit, make_costs, make_policy

from siniantrust.bundle import KeyStore, build_bundle
from siniantrust.graph import Model, enumerate_cuts, load_model
from siniantrust.leakage._audit_file import audit_bytes, sealed
from siniantrust.odla import DeviceSpec
from siniantrust.planner import AffineCost, Plan, Policy, solve
from siniantrust.runtime import Session, open_session
from siniantrust.trust import PROTECTIONS, host_checks


@cache
def missing_protections() -> tuple[str, ...]:
    """Return the protections that this host lacks; skip the test where it cannot run a process enclave at all."""
    checks = {check.name: check for check in host_checks()}
    if not checks["process"].ok:
        pytest.skip(f"no process enclave on this host: {checks['process'].detail}")
    return tuple(protection.name for protection in PROTECTIONS if not checks[protection.name].ok)


@dataclass(frozen=True)
class Deployment:
    """A model, its plan and the bundle built from them, with the keys to it."""

    model: Model
    plan: Plan
    path: Path
    audit_folder: Path
    keystore: KeyStore

    def open(self, devices: Mapping[str, DeviceSpec] | None = None) -> Session:
        """Open a session over the bundle."""
        return open_session(self.path, keystore=self.keystore, devices=devices)

    def inputs(self, batch: int = 1, *, seed: int = 0) -> dict[str, np.ndarray]:
        """Draw random inputs."""
        generator = np.random.default_rng(seed)
        return {
            tensor.name: generator.standard_normal((batch, *tensor.shape[1:])).astype(tensor.dtype)
            for tensor in self.model.inputs
        }

    def expected(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the uncut model."""
        import onnxruntime

        session = onnxruntime.InferenceSession(self.model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
        names = [tensor.name for tensor in self.model.outputs]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def simulated_policy(**changes: object) -> Policy:
    """Return a policy that this host's process enclave satisfies; ``changes`` are top-level fields."""
    enclave = {
        "accept": ["simulated"],
        "allow_missing": list(missing_protections()),
        "memory_bytes": 256 << 20,
    }
    devices = [{"name": "cloud", "options": {"threads": 1}}]
    split = {"allow_all_trusted": False}
    return make_policy(**{"enclave": enclave, "device": devices, "objective": split, **changes})  # type: ignore[arg-type]


def deploy(model: Model, folder: Path, *, cut: str, replicas: tuple[str, ...] = (), **policy: object) -> Deployment:
    """Build a bundle below ``folder`` with the first cut at the tensor ``cut``; ``policy`` has top-level fields.

    Every cut before leaks everything, none after it anything, and only computing costs: the plan cuts right there.
    Part 2 is on the device ``cloud`` and on ``replicas``.
    """
    cuts = enumerate_cuts(model)
    order = [each.id for each in cuts.cuts]
    first = next(order.index(each.id) for each in cuts.cuts if each.tensors == (cut,))
    leakage = {name: float(index < first) for index, name in enumerate(order)}
    audit = sealed(make_audit(model, cuts, leakage, input_name=model.inputs[0].name))
    audit_folder = folder / "audit"
    audit_folder.mkdir(parents=True)
    (audit_folder / "audit.json").write_bytes(audit_bytes(audit))
    free = AffineCost(base_s=0.0, seconds_per_byte_in=0.0, seconds_per_byte_out=0.0, basis="made up")
    wanted = simulated_policy(**policy)
    names = [device.name for device in wanted.device]
    costs = make_costs(model, names).model_copy(update={"crossing": free, "transfers": dict.fromkeys(names, free)})
    plan = solve(model, cuts, policy=wanted, audit=audit, costs=costs)
    assert plan.parts[1].device == "cloud"
    if replicas:
        plan = with_replicas(plan, replicas)
    keystore = KeyStore(folder / "keys")
    path = build_bundle(model, plan, folder / "deploy", keystore=keystore, audit_folder=audit_folder)
    return Deployment(model, plan, path, audit_folder, keystore)


def with_replicas(plan: Plan, replicas: tuple[str, ...]) -> Plan:
    """Return ``plan`` with part 2 on more devices."""
    part = plan.parts[1].model_copy(update={"replicas": replicas})
    changed = plan.model_copy(update={"parts": (plan.parts[0], part, *plan.parts[2:])})
    chosen = (plan.cut_ids, plan.devices)
    listed = [
        each.model_copy(update={"device": changed.devices}) if (each.cut_ids, each.device) == chosen else each
        for each in plan.alternatives
    ]
    return changed.model_copy(update={"alternatives": tuple(listed)})


def devices(*names: str, **clearances: str) -> list[dict[str, object]]:
    """Return policy entries for single-threaded devices; ``clearances`` names those that are cleared for less."""
    entries = [(name, "obscured") for name in names] + list(clearances.items())
    return [{"name": name, "options": {"threads": 1}, "clearance": clearance} for name, clearance in entries]


def vectors() -> Model:
    """Return a chain over vectors of 8 floats: products with weights and activations, ``t0`` to ``t7``."""
    return chain_model(8)


def images(*, batch: int | str = "batch", channels: int = 8, size: int = 12, depth: int = 2) -> Model:
    """Load ``images_proto``."""
    return load_model(images_proto(batch=batch, channels=channels, size=size, depth=depth))


def images_proto(*, batch: int | str = "batch", channels: int = 8, size: int = 12, depth: int = 2) -> onnx.ModelProto:
    """Return a residual network over images; the first convolution's activation is ``r0``, then ``r1``, ``r2`` …."""
    generator = np.random.default_rng(0)
    nodes, weights, widths = [], [], [3, *[channels] * (depth + 1)]
    for index, (before, after) in enumerate(pairwise(widths)):
        source = f"r{index - 1}" if index else "image"
        scale = (before * 9) ** -0.5
        weights.append((generator.standard_normal((after, before, 3, 3)) * scale).astype(np.float32))
        nodes.append(helper.make_node("Conv", [source, f"w{index}"], [f"c{index}"], f"conv{index}", pads=[1, 1, 1, 1]))
        total = f"c{index}"
        if index:
            total = f"a{index}"
            nodes.append(helper.make_node("Add", [f"c{index}", source], [total], f"add{index}"))
        nodes.append(helper.make_node("Relu", [total], [f"r{index}"], f"relu{index}"))
    nodes.append(helper.make_node("GlobalAveragePool", [f"r{depth}"], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["logits"], "head"))
    nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], "softmax"))
    head = generator.standard_normal((channels, 5)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "images",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(array, f"w{index}") for index, array in enumerate(weights)]
        + [numpy_helper.from_array(head, "head")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
