"""Search for a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import siniantrust as st
from siniantrust.cli._options import Dims, Json, ModelFile, Seed, parse_dims
from siniantrust.cli._retrain import DataFile, PrivateInput, percent
from siniantrust.cli._show import show_json, show_line, show_table, size


def tune(
    model: ModelFile,
    data: DataFile,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; a search that was killed goes on in it.")],
    trials: Annotated[int, typer.Option("--budget", min=1, help="Trials in the folder in the end.")] = 50,
    at: Annotated[
        list[str] | None, typer.Option("--at", metavar="TENSOR", help="Search these cuts only; repeat for more.")
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MASK[+MASK...]",
            help="Search these masks only, or none: NAME or NAME:PARAMETER=NUMBER,..., several joined by +; repeat for "
            "more. The strength is searched where it is not named.",
        ),
    ] = None,
    penalty: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:weight=NUMBER]", help="Train with these penalties only, or none; repeat for more."),
    ] = None,
    attack: Annotated[list[str] | None, typer.Option(help="Judge by this attack only; repeat for more.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data of each trial.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Trials that run beside each other.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run them on the Ray cluster whose head is at host:port.")
    ] = None,
    max_leakage: Annotated[float, typer.Option(help="Limit of every metric but re-identification.")] = 0.15,
    max_reidentification: Annotated[float, typer.Option(help="Limit of re-identification.")] = 0.1,
    lost_points: Annotated[float, typer.Option(help="Points of accuracy that may be lost.")] = 1.0,
    give_up: Annotated[
        float, typer.Option(help="Points of accuracy lost beyond which a trial is not even attacked.")
    ] = 5.0,
    private_input: PrivateInput = None,
    dim: Dims = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Search masks, strengths, cuts and structure for what leaks, loses, computes and sends least."""
    from siniantrust import leakage
    from siniantrust.masking import tune as room
    from siniantrust.masking.retrain import Recipe

    loaded = st.load(model, dims=parse_dims(dim))
    search = room.Search(
        cuts=room.chosen_cuts(loaded, at or ()),
        masks=tuple(mask) if mask else room.defences(),
        penalties=tuple(penalty) if penalty else room.PENALTIES,
        most_lost_points=give_up,
        recipe=Recipe(mode="joint", epochs=epochs, learning_rate=2e-3, seed=seed),
        budget=leakage.Budget(threads=1),
        attacks=tuple(attack) if attack else None,
        seed=seed,
    )
    found = room.tune(
        loaded,
        leakage.load_data(data, loaded, private_input=private_input),
        search,
        trials=trials,
        out=out,
        limits=room.Limits(max_leakage, max_reidentification, lost_points),
        workers=workers,
        ray=ray,
    )
    room.write_tuning(found, out / "tune.json")
    room.draw_front(found, out / "front.png")
    if as_json:
        show_json(found.described())
        return
    metrics = list(dict.fromkeys(name for point in found.points for name in point.leakage))
    show_table(
        (
            "trial#",
            "cut",
            "mask",
            "penalty",
            *(f"{name}#" for name in metrics),
            "accuracy#",
            "lost#",
            "MFLOP#",
            "sent#",
            "within",
        ),
        (
            (
                str(point.number),
                point.cut,
                point.mask if not point.strength else f"{point.mask} {point.strength:.2f}",
                point.penalty,
                *(f"{point.leakage[name]:.3f}" if name in point.leakage else "-" for name in metrics),
                percent(point.accuracy),
                f"{point.lost_points:+.1f}",
                f"{point.flops / 1e6:.2f}",
                size(point.size_bytes),
                "yes" if point.within else "no",
            )
            for point in found.points
            if point.on_front
        ),
        title="the front: upper 95 % bounds of the best attacker, at a quick audit's budget",
    )
    within = sum(point.within for point in found.points)
    show_line(
        f"{len(found.points)} trials, {len(found.given_up)} given up for their accuracy, {len(found.failed)} failed, "
        f"{within} within the limits; the given model has "
        f"{percent(found.accuracy_original)}"
    )
    show_line(f"models are in {out / 'trials'}; audit the one that you choose with `sinian audit` before it is used")
