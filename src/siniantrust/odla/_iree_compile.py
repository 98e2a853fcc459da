"""ONNX to an IREE module: import, compile in a process of its own, and say which nodes the compiler refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx
from onnx import shape_inference

from siniantrust._extras import require
from siniantrust.graph import Part
from siniantrust.odla._by_node import blamed_nodes
from siniantrust.odla._device import Unsupported
from siniantrust.odla._iree_wrong import rules_of
from siniantrust.odla._text import one_line
from siniantrust.odla._wrong_nodes import wrongly_computed

_BACKENDS = {"llvm-cpu": "llvm-cpu", "vulkan": "vulkan-spirv"}
_ERROR = re.compile(r"^<stdin>:(\d+):\d+: error: (.*)$", re.MULTILINE)
_OPERATOR = re.compile(r'torch\.operator "onnx\.(\w+)"')


@dataclass(frozen=True, slots=True)
class Target:
    """What to compile for. ``backend`` is llvm-cpu or vulkan; an empty ``triple`` is this machine's."""

    backend: str
    cpu: str
    triple: str


@dataclass(frozen=True, slots=True)
class CompileError:
    """Why a part does not compile.

    ``lines`` are (the node's place among the operators, the reason) from the compiler; ``refused`` are nodes that it
    was not asked about.
    """

    reason: str
    lines: tuple[tuple[int, str], ...] = ()
    refused: tuple[Unsupported, ...] = ()


def compile_part(part: Part, target: Target) -> bytes | CompileError:
    """Compile ``part`` to a module whose function is ``main``, or say why not.

    The compiler runs in a process of its own: some inputs end it.

    Raises:
        MissingExtraError: if IREE's compiler is not installed.
    """
    wrong = wrongly_computed(part, rules_of(target.backend))
    if wrong:
        return CompileError(wrong[0].reason, refused=tuple(wrong))
    require("iree.compiler", extra="iree")
    from iree.compiler import tools

    try:
        text = _imported(part.proto)
    except Exception as error:  # noqa: BLE001 - the importer raises many kinds
        return CompileError(f"not imported: {one_line(error) or type(error).__name__}")
    flags = ["--iree-input-demote-i64-to-i32=false", "--iree-input-demote-f64-to-f32=false"]
    if target.backend == "llvm-cpu":
        flags.append(f"--iree-llvmcpu-target-cpu={target.cpu}")
        flags += [f"--iree-llvmcpu-target-triple={target.triple}"] if target.triple else []
    try:
        compiled = tools.compile_str(
            text, input_type="onnx", target_backends=[_BACKENDS[target.backend]], extra_args=flags
        )
    except Exception as error:  # noqa: BLE001 - the tool's own kind, and what ends the process
        return _explained(str(error), text)
    return bytes(compiled)


def refused_nodes(part: Part, error: CompileError) -> list[Unsupported]:
    """Name the nodes that ``error`` is about; the empty name where it does not say."""
    if error.refused:
        return list(error.refused)
    nodes = [node for node in part.proto.graph.node if node.op_type != "Constant"]
    named = {
        place: Unsupported(nodes[place].name, nodes[place].op_type, reason)
        for place, reason in reversed(error.lines)
        if place < len(nodes)
    }
    if named:
        return [named[place] for place in sorted(named)]
    blamed = blamed_nodes(part, _import_refusal) if error.reason.startswith("not imported") else []
    return blamed or [Unsupported(node="", op_type="", reason=error.reason)]


def _import_refusal(proto: onnx.ModelProto) -> str | None:
    try:
        _imported(proto)
    except Exception as error:  # noqa: BLE001 - the importer raises many kinds
        return f"not imported: {one_line(error) or type(error).__name__}"
    return None


def _imported(proto: onnx.ModelProto) -> str:
    """Return the model in IREE's input language."""
    from iree.compiler import ir
    from iree.compiler.extras import onnx_importer

    inferred = shape_inference.infer_shapes(proto, data_prop=True)
    inferred.graph.name = "main"
    info = onnx_importer.ModelInfo(inferred)
    module = info.create_module(context=ir.Context()).operation
    onnx_importer.NodeImporter.define_function(info.main_graph, module).import_all()
    module.verify()
    return str(module.get_asm())


def _explained(text: str, source: str) -> CompileError:
    """Read the compiler's complaints; each names a line of the source, and so an operator."""
    found = _ERROR.findall(text)
    if not found:
        return CompileError(one_line(text.replace("Error invoking IREE compiler tool iree-compile", "")))
    operators = [match and match.group(1) for match in map(_OPERATOR.search, source.splitlines())]
    places: dict[int, int] = {}
    for number, operator in enumerate(operators, start=1):
        if operator and operator != "Constant":
            places[number] = len(places)
    reasons = [(int(line), one_line(reason)) for line, reason in found]
    return CompileError(reasons[0][1], tuple((places[line], said) for line, said in reasons if line in places))
