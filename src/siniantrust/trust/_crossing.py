"""What it costs to cross into an enclave and back, and to compute there, measured with small parts."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

import numpy as np

from siniantrust.graph import Part
from siniantrust.odla import (
    Arrays,
    DeviceSpec,
    compute_part,
    fit_non_negative,
    least_seconds,
    link_part,
    median_seconds,
    open_device,
)
from siniantrust.trust._seal import seal_part
from siniantrust.trust._types import CrossingCost, Enclave

_ROWS = (1, 256, 1024)
_REPEATS = 15
_LEAST_S = 1e-6


def measure_crossing(enclave: Enclave) -> CrossingCost:
    """Measure base latency, the cost of a byte in each direction, and how fast it computes, on a live enclave.

    A part that returns its input moves as many bytes out as in; one that returns its first column moves bytes in only.
    What they compute themselves, measured on the same parts run in this process, is subtracted. A small network, run in
    both places, says how many times as long the enclave takes to compute. All are loaded under names that start with
    ``siniantrust-``.

    Raises:
        EnclaveError: if the enclave cannot load the parts.
    """
    sizes, seconds = [], []
    with ExitStack() as stack:
        for output in ("every", "first"):
            part = link_part(output)
            inside, bare = _load(enclave, part, f"{part.name}-{output}"), _open_bare(stack, enclave, part)
            for rows in _ROWS:
                x = np.zeros((rows, part.inputs[0].shape[1]), np.float32)
                inside_s, bare_s = median_seconds([partial(run, {"x": x}) for run in (inside, bare)], repeats=_REPEATS)
                sizes.append((1.0, x.nbytes, rows * part.outputs[0].size_bytes))
                seconds.append(max(inside_s - bare_s, _LEAST_S))
        base_s, in_s, out_s = (float(value) for value in fit_non_negative(np.array(sizes), np.array(seconds)))
        network = compute_part()
        tensor = network.inputs[0]
        inputs = {tensor.name: np.random.default_rng(0).standard_normal(tensor.shape).astype(tensor.dtype)}
        calls = [_load(enclave, network, network.name), _open_bare(stack, enclave, network)]
        inside_s, bare_s = least_seconds([partial(call, inputs) for call in calls], repeats=_REPEATS)
    crossed_s = base_s + in_s * tensor.size_bytes + out_s * network.outputs[0].size_bytes
    sizes_text = ", ".join(f"{int(size[1]) >> 10} KiB" for size in sizes[: len(_ROWS)])
    return CrossingCost(
        base_s=base_s,
        seconds_per_byte_in=in_s,
        seconds_per_byte_out=out_s,
        basis=f"medians of {_REPEATS} calls at {sizes_text} of two parts that only move data, minus the same parts run "
        "bare; non-negative least squares of relative errors",
        slowdown=max(inside_s - crossed_s, _LEAST_S) / bare_s,
    )


def _load(enclave: Enclave, part: Part, name: str) -> Callable[[Arrays], object]:
    key, context = secrets.token_bytes(32), b"siniantrust crossing"
    sealed = seal_part(part, key=key, context=context)
    enclave.load(name, sealed.skeleton, sealed.sealed, key, context=context)
    return partial(enclave.run, name)


def _open_bare(stack: ExitStack, enclave: Enclave, part: Part) -> Callable[[Arrays], object]:
    device = open_device(DeviceSpec("bare", options={"threads": enclave.info().threads}))
    return stack.enter_context(closing(device.compile(part))).run
