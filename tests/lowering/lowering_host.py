"""What the tests of the lowering share: a lowered part, compiled for this machine and run in this process."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from siniantrust.lowering import Lowered, lower, pack, unpack

_FLAGS = (
    *("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
    *("-ffreestanding", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing"),
)
# What C leaves undefined is written to the standard error. Floats that do not fit an integer are not in "undefined".
SANITISERS = ("-fsanitize=undefined,float-cast-overflow",)
_GUARD_BYTES = 64
_GUARD = 0xA5
_BLOCK_ALIGNMENT = 16


def build_model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[int | str]]],
    outputs: Mapping[str, tuple[int, list[int | str]]],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a checked model."""
    for index, node in enumerate(nodes):
        node.name = node.name or f"n{index}"
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run_reference(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model in ONNX Runtime as it is written, without fusing anything."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def run_lowered(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], folder: Path, *flags: str
) -> dict[str, np.ndarray]:
    """Lower a model, compile it and run it once."""
    lowered = lower(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return run_source(lowered, compile_part(lowered.source, folder, *flags).part_run, weights, inputs)


def compile_part(source: str, folder: Path, *flags: str) -> ctypes.CDLL:
    """Compile a lowered part, every warning being an error; skip the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) on this machine")
    number = len(list(folder.glob("*.c")))
    file = folder / f"part{number}.c"
    file.write_text(source)
    library = folder / f"part{number}.so"
    subprocess.run([compiler, *_FLAGS, *flags, "-o", str(library), str(file)], check=True)
    return ctypes.CDLL(str(library))


def run_source(
    lowered: Lowered,
    part_run: Callable[..., object],
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Run a compiled part; what it reads has to stay as it was, and what lies behind each block too."""
    contents = (
        pack(lowered.weights, weights, lowered.weights_bytes),
        pack(lowered.inputs, inputs, lowered.input_bytes),
        bytes(lowered.output_bytes),
        b"\xff" * lowered.arena_bytes,  # not a number, in floats
    )
    blocks = [_guarded(content) for content in contents]
    part_run(*(ctypes.c_void_p(block.ctypes.data) for block in blocks))
    for block, content in zip(blocks, contents, strict=True):
        assert np.all(block[len(content) :] == _GUARD), "the part wrote behind the end of a block"
    assert blocks[0][: len(contents[0])].tobytes() == contents[0], "the part wrote into its weights"
    assert blocks[1][: len(contents[1])].tobytes() == contents[1], "the part wrote into its inputs"
    return unpack(lowered.outputs, blocks[2][: lowered.output_bytes].tobytes())


def _guarded(content: bytes | bytearray) -> np.ndarray:
    """Return the bytes at an aligned address, with a guard behind them."""
    room = np.full(len(content) + _GUARD_BYTES + _BLOCK_ALIGNMENT, _GUARD, np.uint8)
    block = room[-room.ctypes.data % _BLOCK_ALIGNMENT :][: len(content) + _GUARD_BYTES]
    block[: len(content)] = np.frombuffer(bytes(content), np.uint8)
    return block
