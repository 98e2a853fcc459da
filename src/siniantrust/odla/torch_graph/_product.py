"""Matrix products."""

from __future__ import annotations

import torch

from siniantrust.odla.torch_graph._table import Call, operator


@operator("MatMul")
def matmul(_: Call, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Multiply matrices, broadcasting the axes before them."""
    return torch.matmul(first, second)


@operator("Gemm", attributes="alpha beta broadcast transA transB")
def gemm(call: Call, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor | None = None) -> torch.Tensor:
    """Return alpha A B + beta C, with A and B transposed or not."""
    product = (first.T if call.get("transA", 0) else first) @ (second.T if call.get("transB", 0) else second)
    if call.get("alpha", 1.0) != 1:
        product = product * call.get("alpha")
    if third is None:
        return product
    return product + (third if call.get("beta", 1.0) == 1 else third * call.get("beta"))


@operator("Einsum", attributes="equation")
def einsum(call: Call, *inputs: torch.Tensor) -> torch.Tensor:
    """Sum products by Einstein's convention."""
    return torch.einsum(call.get("equation"), *inputs)
