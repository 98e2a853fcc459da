"""Random models, audits and costs for the planner's and the bundle's tests."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from siniantrust.graph import CutSet, Model, load_model
from siniantrust.leakage import AttackResult, Audit, CutAudit, DataDescription, Estimate
from siniantrust.planner import AffineCost, ComputeCost, CostProfile, Policy, parse_policy

WIDTH = 8


def build(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    name: str = "toy",
    batch: str | int = "batch",
) -> Model:
    """Make a model of vectors of ``WIDTH`` floats; a name that begins with w is a WIDTH x WIDTH weight."""
    generator = np.random.default_rng(0)
    weights = sorted({name for node in nodes for name in node.input if name.startswith("w")})
    graph = helper.make_graph(
        list(nodes),
        name,
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, [batch, WIDTH]) for each in inputs],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, [batch, WIDTH]) for each in outputs],
        [numpy_helper.from_array(generator.standard_normal((WIDTH, WIDTH)).astype(np.float32), w) for w in weights],
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def chain_model(length: int) -> Model:
    """Make a chain: a product with a weight at every fourth node, activations between."""
    nodes = []
    for index in range(length):
        source = f"t{index - 1}" if index else "x"
        if index % 4 == 0:
            nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [f"t{index}"], name=f"n{index}"))
        else:
            nodes.append(
                helper.make_node(("Relu", "Tanh", "Sigmoid")[index % 3], [source], [f"t{index}"], name=f"n{index}")
            )
    return build(nodes, inputs=["x"], outputs=[f"t{length - 1}"], name="chain")


def random_model(seed: int, *, nodes: int = 10, inputs: Sequence[str] = ("x",)) -> Model:
    """Make a random graph of activations, sums and products with weights; what nothing reads is an output."""
    source = random.Random(seed)
    made = list(inputs)
    protos = []
    read: set[str] = set()
    for index in range(nodes):
        recent = made[-3:] if source.random() < 0.8 else made
        kind = source.choice(["Relu", "Add", "MatMul", "Tanh", "Mul"])
        operands = [source.choice(recent)]
        if index < len(inputs):
            operands = [inputs[index]]
        if kind in {"Add", "Mul"}:
            operands.append(source.choice(recent))
        read.update(operands)
        if kind == "MatMul":
            operands.append(f"w{index}")
        protos.append(helper.make_node(kind, operands, [f"t{index}"], name=f"n{index}"))
        made.append(f"t{index}")
    loose = [name for name in made if name not in read and name not in inputs]
    if len(loose) > 1 and source.random() < 0.8:
        protos.append(helper.make_node("Sum", loose, ["joined"], name="join"))
        protos.append(helper.make_node("Relu", ["joined"], ["end"], name="last"))
        loose = ["end"]
    return build(protos, inputs=inputs, outputs=loose, name=f"random{seed}")


def estimate(upper: float) -> Estimate:
    """Make an estimate whose upper bound is ``upper``."""
    return Estimate(mean=upper * 0.9, worst_5pct=upper, upper=upper, raw=upper, prior=0.0)


def make_audit(
    model: Model,
    cuts: CutSet,
    leakage: Mapping[str, float],
    *,
    converged: Mapping[str, bool] | None = None,
    attack: str = "inverter",
    input_name: str = "x",
) -> Audit:
    """Make an audit in which both metrics leak what ``leakage`` says, for the cuts that it names."""
    entries = []
    for cut in cuts.cuts:
        if cut.id not in leakage:
            continue
        both = {"ssim": estimate(leakage[cut.id]), "reidentification": estimate(leakage[cut.id] / 2)}
        ok = (converged or {}).get(cut.id, True)
        result = AttackResult(leakage=both, converged=ok, gain=0.0, detail="made up", time_s=0.1)
        entries.append(
            CutAudit(
                cut_id=cut.id,
                tensors=cut.tensors,
                screens={},
                attacks={attack: result},
                leakage=both,
                best_attack={"ssim": attack, "reidentification": attack},
                converged=ok,
            )
        )
    return Audit(
        id="a" * 64,
        model_name=model.name,
        model_sha256=model.sha256,
        data=DataDescription(
            sha256="d" * 64,
            kind="array",
            input_name=input_name,
            item_shape=(WIDTH,),
            attacker_count=10,
            validation_count=10,
            heldout_count=10,
        ),
        seed=0,
        tolerance=0.02,
        cuts=tuple(entries),
        skipped={},
        screens={},
        attacks={},
        originals_picture=None,
        machine="test",
        time_s=0.0,
    )


def make_costs(model: Model, devices: Sequence[str] = ("gpu",), *, seed: int | None = None) -> CostProfile:
    """Make costs: random with a seed, else 1 ms per node in the enclave and 0.1 ms on every device."""
    source = random.Random(seed)

    def seconds(fixed: float) -> dict[str, float]:
        return {node.name: fixed if seed is None else source.random() * fixed for node in model.nodes}

    def exchange(scale: float) -> AffineCost:
        base = scale if seed is None else source.random() * scale
        return AffineCost(base_s=base, seconds_per_byte_in=base / 100, seconds_per_byte_out=base / 50, basis="made up")

    return CostProfile(
        model_sha256=model.sha256,
        trusted=ComputeCost(latency_s=seconds(1e-3), basis="made up"),
        devices={name: ComputeCost(latency_s=seconds(1e-4), basis="made up") for name in devices},
        crossing=exchange(1e-4),
        transfers={name: exchange(1e-5) for name in devices},
        machine="test",
    )


def make_policy(devices: Sequence[str] = ("gpu",), **changes: object) -> Policy:
    """Make a policy with default bounds and these devices; ``changes`` are top-level fields."""
    raw: dict[str, object] = {"device": [{"name": name} for name in devices], "enclave": {"accept": ["simulated"]}}
    return parse_policy({**raw, **changes}, origin="test")


def exchange_s(cost: AffineCost, bytes_in: int, bytes_out: int) -> float:
    """Return the seconds of one exchange."""
    return cost.base_s + bytes_in * cost.seconds_per_byte_in + bytes_out * cost.seconds_per_byte_out


class Meter:
    """Adds up bytes and seconds of sets of nodes, one by one."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.inputs = {tensor.name for tensor in model.inputs}
        self.outputs = {tensor.name for tensor in model.outputs}

    def size(self, names: set[str]) -> int:
        """Return the bytes of these values."""
        return sum(self.model.tensors[name].size_bytes for name in names)

    def read(self, nodes: set[int]) -> set[str]:
        """Return the values that the nodes read."""
        return {name for index in nodes for name in self.model.nodes[index].inputs}

    def made(self, nodes: set[int]) -> set[str]:
        """Return the values that the nodes make."""
        return {name for index in nodes for name in self.model.nodes[index].outputs}

    def moved(self, reading: set[int], making: set[int]) -> int:
        """Return the bytes that nodes read of what others make."""
        return self.size(self.read(reading) & self.made(making))

    def entering(self, reading: set[int]) -> int:
        """Return the bytes of the model's inputs that the nodes read."""
        return self.size(self.read(reading) & self.inputs)

    def answered(self, making: set[int]) -> int:
        """Return the bytes of the model's outputs that the nodes make."""
        return self.size(self.made(making) & self.outputs)

    def seconds(self, latency_s: dict[str, float], nodes: set[int]) -> float:
        """Return the seconds of all the nodes."""
        return sum(latency_s[self.model.nodes[index].name] for index in nodes)

    def peak(self, nodes: set[int]) -> int:
        """Return weights and the most activations alive, asking at every node which values are needed."""
        peak = 0
        for now in sorted(nodes):
            before, after = {node for node in nodes if node <= now}, {node for node in nodes if node >= now}
            outside = {node.index for node in self.model.nodes} - nodes
            needed = self.read(after) | self.read(outside) | self.outputs | self.made({now})
            alive = (self.made(before) & needed) | (self.read(after) - self.made(nodes)) & set(self.model.tensors)
            peak = max(peak, self.size(alive))
        return peak + sum(self.model.nodes[index].parameter_bytes for index in nodes)
