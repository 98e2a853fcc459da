"""Make the trusted part smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import siniantrust as st
from siniantrust._files import write_atomic
from siniantrust.cli._options import Dims, Json, ModelFile, Seed, parse_dims
from siniantrust.cli._retrain import DataFile, PrivateInput, percent
from siniantrust.cli._show import show_json, show_line, show_table, size


def restructure(
    model: ModelFile,
    data: DataFile,
    *,
    at: Annotated[str, typer.Option("--at", metavar="TENSOR", help="The tensor that crosses, or a cut's id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="ONNX file to write; restructuring.json beside it.")],
    step: Annotated[
        list[str],
        typer.Option("--pass", metavar="NAME=AMOUNT", help="A pass; repeat for more. See docs/retraining.md."),
    ],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data after each, at most.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Highest step size of distillation.")] = 3e-3,
    private_input: PrivateInput = None,
    dim: Dims = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make what comes before a cut cheaper and what crosses it smaller, and distil after each pass."""
    from siniantrust import leakage, masking
    from siniantrust.masking import restructure as rooms
    from siniantrust.masking.retrain import Recipe

    steps = [rooms.parse_step(text) for text in step]
    loaded = st.load(model, dims=parse_dims(dim))
    found = rooms.restructure(
        loaded,
        leakage.load_data(data, loaded, private_input=private_input),
        cut=masking.find_cut(loaded, [at]),
        steps=steps,
        recipe=Recipe(mode="joint", epochs=epochs, learning_rate=learning_rate, seed=seed),
    )
    write_atomic(out, found.proto.SerializeToString(deterministic=True))
    record = out.with_name("restructuring.json")
    write_atomic(record, (json.dumps(found.described(), indent=1, allow_nan=False) + "\n").encode())
    if as_json:
        show_json(found.described())
        return
    before = (
        "as given",
        f"{found.before.flops / 1e6:.3f}",
        size(found.before.size_bytes),
        str(found.before.parameters),
    )
    show_table(
        ("pass", "MFLOP before the cut#", "crosses#", "parameters#", "accuracy#", "agrees#"),
        (
            (*before, percent(found.accuracy_before), "-"),
            *(
                (
                    each.step,
                    f"{each.figures.flops / 1e6:.3f}",
                    size(each.figures.size_bytes),
                    str(each.figures.parameters),
                    percent(each.training.accuracy_after),
                    percent(each.training.agreement),
                )
                for each in found.steps
            ),
        ),
        title="each pass with its distillation; held-out items",
    )
    show_line(f"'{found.tensor}' crosses in {out}; how it came about is in {record}")
