"""Commands that change a model's numbers: re-training behind, or before and behind, a mask."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import siniantrust as st
from siniantrust._files import write_atomic
from siniantrust.cli._options import Dims, Json, ModelFile, Seed, parse_dims
from siniantrust.cli._show import show_json, show_line, show_table

DataFile = Annotated[Path, typer.Argument(metavar="DATA", help=".npy or .npz as for `sinian audit`.")]
At = Annotated[
    list[str],
    typer.Option("--at", metavar="TENSOR", help="What crosses: a tensor (repeat for several), or a cut's id."),
]
PrivateInput = Annotated[str | None, typer.Option(help="The private input of a model with several.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the data, at most.")]


class Trained(StrEnum):
    """Which parts are trained."""

    part2 = "part2"
    joint = "joint"


def retrain(
    model: ModelFile,
    data: DataFile,
    *,
    at: At,
    out: Annotated[Path, typer.Option("--out", "-o", help="ONNX file to write; training.json beside it.")],
    mode: Annotated[Trained, typer.Option(help="Part 2 alone, on what Part 1 makes, or both parts.")] = Trained.part2,
    teacher: Annotated[
        Path | None, typer.Option(help="ONNX file whose answers to learn in place of labels (distillation).")
    ] = None,
    penalty: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:weight=NUMBER]",
            help="With --mode joint, also hide the input: nopeek, adversarial, within_class.",
        ),
    ] = None,
    epochs: Epochs = 20,
    batch: Annotated[int, typer.Option(min=1, help="Items of one step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Highest step size.")] = 1e-3,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a gain after which to end.")] = 5,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File from which a killed training goes on; default OUT.checkpoint.", show_default=False),
    ] = None,
    private_input: PrivateInput = None,
    dim: Dims = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a model again, with its mask, and write it with the numbers that it learnt."""
    from siniantrust import leakage, masking
    from siniantrust.masking.objectives import make_objective
    from siniantrust.masking.retrain import Recipe, write_training
    from siniantrust.masking.retrain import retrain as train

    dims = parse_dims(dim)
    loaded = st.load(model, dims=dims)
    found = train(
        loaded,
        leakage.load_data(data, loaded, private_input=private_input),
        cut=masking.find_cut(loaded, at),
        recipe=Recipe(
            mode=mode.value,
            epochs=epochs,
            batch_items=batch,
            learning_rate=learning_rate,
            patience=patience,
            seed=seed,
        ),
        teacher=None if teacher is None else st.load(teacher, dims=dims),
        penalty=None if penalty is None else make_objective(penalty),
        checkpoint=checkpoint or out.with_name(f"{out.name}.checkpoint"),
    )
    write_atomic(out, found.proto.SerializeToString(deterministic=True))
    curves = out.with_name("training.json")
    write_training(found.training, curves)
    training = found.training
    if as_json:
        show_json(training.described())
        return
    show_table(
        ("epoch#", "training loss#", "validation loss#", "validation accuracy#", "rate#", "seconds#"),
        (
            (
                str(each.epoch),
                f"{each.training_loss:.4f}",
                f"{each.validation_loss:.4f}",
                percent(each.validation_accuracy),
                f"{each.learning_rate:.2e}",
                f"{each.time_s:.1f}",
            )
            for each in training.epochs
        ),
    )
    show_line(
        f"held-out accuracy {percent(training.accuracy_before)} before, {percent(training.accuracy_after)} after "
        f"(epoch {training.best_epoch})"
        + ("" if training.accuracy_teacher is None else f", the teacher's {percent(training.accuracy_teacher)}")
    )
    show_line(f"{out}, curves in {curves}")


def percent(share: float | None) -> str:
    """Return a share in percent, or a dash."""
    return "-" if share is None else f"{share:.1%}"
