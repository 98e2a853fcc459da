"""Commands that look and decide: inspect, audit, plan, report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import siniantrust as st
from siniantrust.cli._options import Devices, Dims, Json, ModelFile, Seed, parse_devices, parse_dims
from siniantrust.cli._plan_tables import show_explanation, show_masking
from siniantrust.cli._show import figures, milliseconds, show_json, show_line, show_table, size
from siniantrust.errors import SinianError

if TYPE_CHECKING:
    from siniantrust import leakage


def inspect(
    model: ModelFile,
    *,
    dim: Dims = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list cuts that split a fusable activation.")] = False,
    as_json: Json = False,
) -> None:
    """Show a model: its interface, what it costs, and where it can be cut."""
    from siniantrust import graph

    loaded = st.load(model, dims=parse_dims(dim))
    cuts = graph.enumerate_cuts(loaded)
    described = graph.describe(loaded, cuts)
    if as_json:
        show_json(described)
        return
    sides = ("inputs", "outputs")
    interface = "; ".join(
        f"{side}: " + ", ".join(f"{each['name']} {each['dtype']} {each['shape']}" for each in described[side])
        for side in sides
    )
    show_line(f"{loaded.name}  sha256 {loaded.sha256[:16]}")
    show_line(interface)
    show_line(
        f"{described['nodes']} nodes, {described['flops'] / 1e6:,.2f} MFLOP, {described['parameters']:,} parameters "
        f"({size(described['parameter_bytes'])})"
    )
    listed = [cut for cut in described["cuts"] if everything or not cut["fusable"]]
    show_table(
        ("cut", "tensors#", "crosses#", "nodes before#", "FLOPs before#"),
        (
            (
                cut["id"],
                str(len(cut["tensors"])),
                size(cut["size_bytes"]),
                str(cut["nodes_before"]),
                f"{cut['flops_share_before']:.1%}",
            )
            for cut in listed
        ),
    )
    hidden = len(described["cuts"]) - len(listed)
    show_line(
        f"{len(listed)} cuts"
        + (f"; {hidden} more only split a fusable activation (--all lists them)" if hidden else "")
        + (f"; the search stopped at its cap of {cuts.cap} cuts" if cuts.capped else "")
    )


def audit(
    model: ModelFile,
    data: Annotated[Path, typer.Argument(metavar="DATA", help=".npy or .npz with items of the private input.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("audit"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look: weaker attackers, and with --policy no time for lost cuts.")
    ] = False,
    policy: Annotated[
        Path | None, typer.Option("--policy", "-p", help="Give up cuts early that surely leak more than it allows.")
    ] = None,
    attack: Annotated[list[str] | None, typer.Option(help="Run only this attack; repeat for more.")] = None,
    max_cuts: Annotated[int | None, typer.Option(min=1, help="Audit at most so many cuts, spread evenly.")] = None,
    private_input: Annotated[str | None, typer.Option(help="The private input of a model with several.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keeps finished work, so that a killed audit goes on.", show_default=False),
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Run on the Ray cluster that Ray finds.")] = False,
    dim: Dims = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Attack every useful cut and write what leaks to a folder."""
    loaded = st.load(model, dims=parse_dims(dim))
    result = st.audit(
        loaded,
        data,
        out=out,
        seed=seed,
        effort="quick" if quick else "standard",
        policy=policy,
        attacks=attack,
        max_cuts=max_cuts,
        private_input=private_input,
        cache=cache or _cache_folder("audits"),
        cluster="ray" if ray else "processes",
    )
    if as_json:
        show_json(result.model_dump(mode="json"))
        return
    metrics = list(dict.fromkeys(metric for cut in result.cuts for metric in cut.leakage))
    show_table(
        ("cut", *(f"{metric}#" for metric in metrics), "best attacks", "converged", "note"),
        (
            (
                cut.cut_id,
                *(f"{cut.leakage[name].upper:.3f}" if name in cut.leakage else "-" for name in metrics),
                ", ".join(dict.fromkeys(cut.best_attack.values())),
                "-" if cut.cut_short else "yes" if cut.converged else "NO",
                _note(cut),
            )
            for cut in result.cuts
        ),
        title="leakage, upper 95 % bound of the best attack (0 is a guess, 1 is the input itself)",
    )
    show_table(
        ("screen (decides nothing)", *(f"rank corr. {metric}#" for metric in metrics), "would cut at"),
        (
            (
                screen.title,
                *("-" if (rank := screen.rank_correlation.get(name)) is None else f"{rank:+.2f}" for name in metrics),
                screen.plateau_cut_id or "-",
            )
            for screen in result.screens.values()
        ),
    )
    for name, reasons in _declined(result).items():
        show_line(f"attack {name} was not run: {reasons}")
    show_line(f"audit {result.id[:16]} written to {out} in {result.time_s:.0f} s")


def _note(cut: leakage.CutAudit) -> str:
    if cut.doubt:
        return f"in doubt: {cut.doubt}"
    if cut.cut_short:
        return f"given up early: {cut.cut_short}"
    if cut.next_budget:
        return "try " + ", ".join(f"{limit} {value}" for limit, value in cut.next_budget.items())
    return ""


def _declined(result: leakage.Audit) -> dict[str, str]:
    """Return the attacks that could be mounted at no cut, with the reason."""
    mounted = {name for cut in result.cuts for name in cut.attacks}
    return {name: reason for cut in result.cuts for name, reason in cut.declined.items() if name not in mounted}


def _cache_folder(name: str) -> Path:
    """Return where this user's cache ``name`` lies (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home and Path(home).is_absolute() else Path.home() / ".cache") / "siniantrust" / name


def plan(
    model: ModelFile,
    *,
    policy: Annotated[Path, typer.Option("--policy", "-p", help="TOML file; see docs/policy.md.")],
    audit_folder: Annotated[Path | None, typer.Option("--audit", "-a", help="Folder of `sinian audit`.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("plan.json"),
    device: Devices = None,
    dim: Dims = None,
    seed: Seed = 0,
    profiles: Annotated[
        Path | None, typer.Option(help="Folder of measured profiles; by default in the user's cache.")
    ] = None,
    measure_again: Annotated[
        bool, typer.Option("--measure-again", help="Measure devices even where a profile is kept.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Also say why each node is where it is; all of it in explanation.json by the plan."
        ),
    ] = False,
    mask: Annotated[
        Literal["none", "auto", "exact"],
        typer.Option(
            help="Layers under one-time pads: auto where they relieve the enclave, exact instead of any plain cut."
        ),
    ] = "none",
    as_json: Json = False,
) -> None:
    """Find the best placement that the policy allows."""
    from siniantrust import leakage, planner

    loaded = st.load(model, dims=parse_dims(dim))
    audited = None if audit_folder is None else leakage.load_audit(audit_folder)  # a fault shows before the measuring
    costs = st.measure(
        loaded,
        policy=policy,
        devices=parse_devices(device),
        seed=seed,
        profiles=profiles or _cache_folder("profiles"),
        measure_again=measure_again,
        masks=mask != "none",
    )
    found = st.plan(loaded, policy=policy, audit=audited, costs=costs, mask=mask)
    planner.save_plan(found, out)
    explanation = st.explain(loaded, found, costs) if explain else None
    if explanation is not None:
        planner.save_explanation(explanation, out.with_name("explanation.json"))
    if as_json:
        plan_record = found.model_dump(mode="json")
        show_json(
            plan_record
            if explanation is None
            else {"plan": plan_record, "explanation": explanation.model_dump(mode="json")}
        )
        return
    show_table(
        ("part", "device", "nodes#", "MFLOP#", "why"),
        (
            (
                part.name,
                "+".join((part.device, *part.replicas)),
                str(len(part.nodes)),
                f"{part.flops / 1e6:.2f}",
                part.reason,
            )
            for part in found.parts
        ),
    )
    chosen = found.chosen
    show_table(
        ("cut", "device", "latency#", "crosses#", "leakage, upper bound", "refused because"),
        (
            (
                (" + ".join(each.cut_ids) or "(none)")
                + (f", {each.padded_layers} padded" if each.padded_layers else ""),
                each.device,
                milliseconds(each.latency_s),
                size(each.boundary_bytes),
                figures(each.leakage_upper),
                each.refusal or ("CHOSEN" if each == chosen else ""),
            )
            for each in found.alternatives
        ),
    )
    if found.masking is not None:
        show_masking(found.masking)
    if explanation is not None:
        show_explanation(explanation)
    show_table(
        ("predicted term", "where", "latency#", "how it is known"),
        ((term.what, term.where, milliseconds(term.latency_s), term.basis) for term in found.prediction.terms),
    )
    show_line(f"predicted: {milliseconds(found.prediction.latency_s)} a request")
    show_line(found.reason)
    for warning in found.warnings:
        show_line(f"warning: {warning}")
    show_line(f"plan written to {out}")


def report(
    bundle: Annotated[Path | None, typer.Argument(metavar="[BUNDLE]", help="Take plan and audit from it.")] = None,
    *,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="plan.json, without a bundle.")] = None,
    audit_folder: Annotated[Path | None, typer.Option("--audit", help="Folder of `sinian audit`.")] = None,
    run_file: Annotated[Path | None, typer.Option("--run", help="run.json of `sinian run --record`.")] = None,
    explanation_file: Annotated[
        Path | None, typer.Option("--explanation", help="explanation.json of `sinian plan --explain`.")
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(help="training.json of `sinian retrain` or `sinian train`; repeat for more."),
    ] = None,
    tune: Annotated[Path | None, typer.Option(help="Folder of `sinian tune`.")] = None,
    before: Annotated[
        Path | None, typer.Option(help="Folder of `sinian audit` of the model without the mask, on the same data.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page about a plan, its audit, a run, and how its model came to be."""
    if (bundle is None) == (plan_file is None):
        raise SinianError("report: give either a bundle's folder or --plan")
    if bundle is not None:
        plan_file = bundle / "plan.json"
        if audit_folder is None and (bundle / "audit").is_dir():
            audit_folder = bundle / "audit"
    assert plan_file is not None  # noqa: S101 - one of the two was given
    page = st.write_report(
        out,
        plan=plan_file,
        audit=audit_folder,
        run=run_file,
        explanation=explanation_file,
        trainings=training or (),
        tune=tune,
        before=before,
    )
    show_line(f"report written to {page}")
