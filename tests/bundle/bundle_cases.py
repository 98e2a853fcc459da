"""A small model with its plan and audit, and bundles built from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siniantrust.bundle import KeyStore, build_bundle
from siniantrust.graph import Model, enumerate_cuts, load_model
from siniantrust.leakage import AttackResult, Audit, CutAudit, DataDescription, Estimate
from siniantrust.leakage._audit_file import sealed
from siniantrust.planner import AffineCost, ComputeCost, CostProfile, Plan, parse_policy, solve

WIDTH = 8
# Its bytes must appear in no file that a host may see.
SECRET_WEIGHT = np.full((WIDTH, WIDTH), 0.31830987, dtype=np.float32)


@dataclass(frozen=True)
class Case:
    """Everything that a build needs."""

    model: Model
    plan: Plan
    audit_folder: Path
    keystore: KeyStore

    def build(self, out: Path) -> Path:
        """Build the bundle at ``out``."""
        return build_bundle(self.model, self.plan, out, keystore=self.keystore, audit_folder=self.audit_folder)


def make_model(seed: int = 0) -> Model:
    """Make a chain of six nodes; the first holds ``SECRET_WEIGHT``."""
    generator = np.random.default_rng(seed)
    other = generator.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["t0"], name="n0"),
        helper.make_node("Relu", ["t0"], ["t1"], name="n1"),
        helper.make_node("MatMul", ["t1", "w1"], ["t2"], name="n2"),
        helper.make_node("Tanh", ["t2"], ["t3"], name="n3"),
        helper.make_node("MatMul", ["t3", "w1"], ["t4"], name="n4"),
        helper.make_node("Relu", ["t4"], ["t5"], name="n5"),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("t5", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(SECRET_WEIGHT, "w0"), numpy_helper.from_array(other, "w1")],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def make_audit(model: Model) -> Audit:
    """Make an audit in which nothing leaks, with two pictures."""
    little = {metric: Estimate(mean=0.0, worst_5pct=0.0, upper=0.0, raw=0.0, prior=0.0) for metric in ("ssim", "nmse")}
    cuts = [
        CutAudit(
            cut_id=cut.id,
            tensors=cut.tensors,
            screens={},
            attacks={
                "inverter": AttackResult(
                    leakage=little,
                    converged=True,
                    gain=0.0,
                    detail="made up",
                    time_s=0.0,
                    picture="inverter.png",
                    worst_picture="worst.png",
                )
            },
            leakage=little,
            best_attack=dict.fromkeys(little, "inverter"),
            converged=True,
        )
        for cut in enumerate_cuts(model).cuts
    ]
    data = DataDescription(
        sha256="d" * 64,
        kind="array",
        input_name="x",
        item_shape=(WIDTH,),
        attacker_count=1,
        validation_count=1,
        heldout_count=1,
    )
    audit = Audit(
        id="a" * 64,
        model_name=model.name,
        model_sha256=model.sha256,
        data=data,
        seed=0,
        tolerance=0.02,
        cuts=tuple(cuts),
        skipped={},
        screens={},
        attacks={},
        originals_picture=None,
        machine="test",
        time_s=0.0,
    )
    return sealed(audit)


def make_case(folder: Path, *, seed: int = 0, threat_model: str = "output-privacy") -> Case:
    """Plan the model in three parts (two under input privacy) and write its audit below ``folder``."""
    model = make_model(seed)
    audit = make_audit(model)
    audit_folder = folder / "audit"
    audit_folder.mkdir(parents=True)
    (audit_folder / "audit.json").write_text(audit.model_dump_json())
    for name in ("inverter.png", "worst.png"):
        (audit_folder / name).write_bytes(b"\x89PNG picture")
    nothing = AffineCost(base_s=0.0, seconds_per_byte_in=0.0, seconds_per_byte_out=0.0, basis="made up")
    slow = ComputeCost(latency_s={node.name: 1e-3 for node in model.nodes}, basis="made up")
    fast = ComputeCost(latency_s={node.name: 1e-4 for node in model.nodes}, basis="made up")
    costs = CostProfile(
        model_sha256=model.sha256,
        trusted=slow,
        devices={"gpu": fast},
        crossing=nothing,
        transfers={"gpu": nothing},
        machine="test",
    )
    policy = parse_policy(
        {"threat_model": threat_model, "device": [{"name": "gpu"}], "leakage": {"max": {"ssim": 0.2}}}, origin="test"
    )
    plan = solve(model, enumerate_cuts(model), policy=policy, audit=audit, costs=costs)
    return Case(model, plan, audit_folder, KeyStore(folder / "keys"))


def run_part(proto: onnx.ModelProto, values: dict[str, np.ndarray]) -> None:
    """Run a part on the values that it reads, and add what it gives."""
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = {entry.name: values[entry.name] for entry in session.get_inputs()}
    names = [entry.name for entry in session.get_outputs()]
    values.update(zip(names, session.run(names, fed), strict=True))
