"""A part as PyTorch's exported program: traced once, saved as bytes, and run without the ONNX graph."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from siniantrust.graph import Part
from siniantrust.odla._signature import signature_of
from siniantrust.odla.torch_graph import TorchGraph, torch_dtype

if TYPE_CHECKING:
    import torch

# Two, since a trace takes an extent of one for a constant.
_TRACED_EXTENT = 2


def exported(part: Part, graph: TorchGraph) -> bytes:
    """Trace ``graph``, which is ``part`` with its weights made, and return PyTorch's archive of the program."""
    import torch

    ports = signature_of(part).inputs
    wanted = [tensor.name for tensor in part.outputs]
    free = {name: torch.export.Dim(f"free_{index}") for index, name in enumerate(_free(part))}

    class Program(torch.nn.Module):
        def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = graph.run({port.name: value for port, value in zip(ports, values, strict=True)}, wanted)
            return tuple(found[name] for name in wanted)

    examples = tuple(
        torch.ones(
            [d if isinstance(d, int) else _TRACED_EXTENT for d in port.dimensions], dtype=torch_dtype(port.dtype)
        )
        for port in ports
    )
    dynamic = tuple({axis: free[d] for axis, d in enumerate(port.dimensions) if isinstance(d, str)} for port in ports)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of its own parts
        program = torch.export.export(Program(), examples, dynamic_shapes=(dynamic,), strict=False)
        stream = io.BytesIO()
        torch.export.save(program, stream)
    return stream.getvalue()


class ExportedGraph:
    """An exported program, run like a ``TorchGraph``."""

    def __init__(self, part: Part, data: bytes) -> None:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._run: Any = torch.export.load(io.BytesIO(data)).module()
        self._inputs = [tensor.name for tensor in part.inputs]
        self._outputs = [tensor.name for tensor in part.outputs]

    def run(self, values: Mapping[str, torch.Tensor], wanted: list[str]) -> dict[str, torch.Tensor]:
        """Return the part's outputs; ``wanted`` are all of them."""
        found = dict(zip(self._outputs, self._run(*(values[name] for name in self._inputs)), strict=True))
        return {name: found[name] for name in wanted}


def _free(part: Part) -> list[str]:
    named = [d for port in signature_of(part).inputs for d in port.dimensions if isinstance(d, str)]
    return list(dict.fromkeys(named))
