"""The command that puts masks into a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import siniantrust as st
from siniantrust._files import write_atomic
from siniantrust.cli._options import Dims, Json, Seed, parse_dims
from siniantrust.cli._show import show_json, show_line, show_table, size
from siniantrust.errors import SinianError


def mask(
    model: Annotated[Path | None, typer.Argument(metavar="[MODEL]", help="ONNX file.")] = None,
    *,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="TENSOR", help="What crosses: a tensor (repeat for several), or a cut's id."),
    ] = None,
    masks: Annotated[
        list[str] | None,
        typer.Option("--mask", metavar="NAME[:PARAMETER=VALUE,...]", help="A mask; repeat for more, in this order."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help=".npy or .npz with items to calibrate the masks with.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("masked.onnx"),
    listed: Annotated[bool, typer.Option("--list", help="List the masks and their parameters.")] = False,
    private_input: Annotated[str | None, typer.Option(help="The private input of a model with several.")] = None,
    dim: Dims = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Put masks behind a cut; the masked model is audited, planned, built and run like any other."""
    if listed:
        _list(as_json=as_json)
        return
    if model is None or not at or not masks or data is None:
        raise SinianError("mask: give MODEL, --at TENSOR, --mask NAME and --data FILE, or --list")
    from siniantrust import leakage, masking

    specs = [masking.parse_mask(text) for text in masks]
    loaded = st.load(model, dims=parse_dims(dim))
    cut = masking.find_cut(loaded, at)
    items = leakage.load_data(data, loaded, private_input=private_input)
    made, crossing = masking.apply_masks(loaded, cut, specs, seed=seed, inputs=items.arrays())
    write_atomic(out, made.proto.SerializeToString(deterministic=True))
    records = masking.read_records(made.proto)
    if as_json:
        show_json(
            {"crosses": crossing.tensors, "size_bytes": crossing.size_bytes, "masks": [asdict(r) for r in records]}
        )
        return
    show_table(
        ("tensor", "mask", "strength#", "what it says of itself"),
        (
            (
                record.tensor,
                record.mask,
                f"{record.strength:g}",
                ", ".join(f"{name} {_text(value)}" for name, value in {**record.parameters, **record.facts}.items()),
            )
            for record in records
        ),
    )
    show_line(
        f"what crosses: {', '.join(crossing.tensors)}, {size(crossing.size_bytes)} (before: {size(cut.size_bytes)})"
    )
    show_line(f"masked model written to {out}; what it hides is known when `sinian audit` has attacked it")


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _list(*, as_json: bool) -> None:
    from siniantrust import masking

    known = masking.list_masks()
    if as_json:
        kept = ("title", "role", "random", "usual", "strength", "source", "cost")
        show_json(
            {
                name: {
                    **{entry: getattr(each, entry) for entry in kept},
                    "parameters": [asdict(parameter) for parameter in each.parameters],
                }
                for name, each in known.items()
            }
        )
        return
    show_table(
        ("mask", "role", "usual#", "strength is", "other parameters", "cost"),
        (
            (
                name,
                each.role,
                f"{each.usual:g}",
                each.strength,
                "; ".join(f"{entry.name} ({entry.default:g}): {entry.meaning}" for entry in each.parameters),
                each.cost,
            )
            for name, each in known.items()
        ),
    )
