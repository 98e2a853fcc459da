"""The public API: one function per stage, from a model to a running deployment and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from siniantrust import bundle, graph, leakage, odla, planner, report, runtime, trust
from siniantrust.errors import DataError


def load(source: str | Path | onnx.ModelProto, *, dims: Mapping[str, int] | None = None) -> graph.Model:
    """Load and check an ONNX model; ``dims`` gives values to free dimensions other than the batch.

    Raises:
        ModelError: if it cannot be used; the message names what and why.
    """
    return graph.load_model(source, dims=dims)


def audit(
    model: graph.Model,
    data: str | Path | np.ndarray | leakage.Data,
    *,
    out: str | Path,
    seed: int = 0,
    effort: Literal["quick", "standard"] | leakage.Budget = "standard",
    policy: str | Path | planner.Policy | None = None,
    attacks: Sequence[str] | None = None,
    max_cuts: int | None = None,
    private_input: str | None = None,
    cache: str | Path | None = None,
    cluster: Literal["processes", "ray"] = "processes",
) -> leakage.Audit:
    """Attack every useful cut of ``model`` and write ``audit.json`` with its pictures to the folder ``out``.

    Args:
        model: the model.
        data: items of the private input: a ``.npy`` or ``.npz`` file, an array (N, *item shape), or ``Data``.
        out: folder to write.
        seed: of everything random in it.
        effort: how strong the attackers are; ``quick`` is a first look.
        policy: a policy file, or a policy: cuts that surely leak more than it allows are given up early.
        attacks: names of the attacks to run; None for all.
        max_cuts: audit at most so many cuts, spread evenly; None for all.
        private_input: the private input, where the model has several and ``data`` is a file.
        cache: folder where features and finished work are kept, so that a killed audit goes on; None keeps nothing.
        cluster: where the work runs: in processes here, or on the Ray cluster that Ray finds.

    Raises:
        DataError: if the data do not fit the model, are empty or not finite.
        PolicyError: if the policy is malformed.
        AuditError: if a worker dies or a folder cannot be written; what was finished is kept in ``cache``.
        MissingExtraError: if torch or another library of the extra ``leakage`` is not installed.
    """
    if isinstance(data, np.ndarray):
        if len(model.inputs) != 1:
            raise DataError(f"model {model.name}: it has {len(model.inputs)} inputs; give a .npz file with all of them")
        data = leakage.Data(inputs=data, labels=None, input_name=model.inputs[0].name)
    elif not isinstance(data, leakage.Data):
        data = leakage.load_data(Path(data), model, private_input=private_input)
    if policy is not None and not isinstance(policy, planner.Policy):
        policy = planner.load_policy(Path(policy))
    return leakage.audit(
        model,
        data,
        cuts=graph.enumerate_cuts(model),
        out=Path(out),
        seed=seed,
        attacks=attacks,
        max_cuts=max_cuts,
        budget=leakage.Budget.preset(effort) if isinstance(effort, str) else effort,
        bounds=None if policy is None else {str(metric): most for metric, most in policy.leakage.max.items()},
        cache=None if cache is None else Path(cache),
        cluster=cluster,
    )


def plan(
    model: graph.Model,
    *,
    policy: str | Path | planner.Policy,
    audit: str | Path | leakage.Audit | None = None,
    devices: Mapping[str, odla.DeviceSpec] | None = None,
    seed: int = 0,
    profiles: str | Path | None = None,
    measure_again: bool = False,
    costs: planner.CostProfile | None = None,
    mask: planner.Mask = "none",
) -> planner.Plan:
    """Measure what the devices and the enclave cost, and find the best placement that the policy allows.

    Args:
        model: the model.
        policy: a policy file, or a policy.
        audit: the audit's folder or the audit; without one no value derived from a secret input may leave the enclave.
        devices: other ways to open the policy's devices, by name.
        seed: of the random inputs that costs are measured with.
        profiles: folder that keeps what was measured of a device for the next time; None keeps nothing.
        measure_again: measure even what is in that folder.
        costs: what ``measure`` returned (with ``masks`` where ``mask`` is not "none"); nothing is measured then.
        mask: whether layers of the private part run on devices under one-time pads: where that takes the enclave less
            time or no cut is allowed (``auto``), or instead of any plain cut (``exact``).

    Raises:
        NoPlanError: if nothing satisfies the policy; ``refusals`` says why for each candidate.
        PolicyError: if the policy is malformed.
        AuditError: if the audit is malformed or of another model.
        TrustError: if the enclave cannot be launched or is not accepted.
        DeviceError: if a device is missing.
    """
    if not isinstance(policy, planner.Policy):
        policy = planner.load_policy(Path(policy))
    if audit is not None and not isinstance(audit, leakage.Audit):
        audit = leakage.load_audit(Path(audit))
    if costs is None:
        costs = measure(
            model,
            policy=policy,
            devices=devices,
            seed=seed,
            profiles=profiles,
            measure_again=measure_again,
            masks=mask != "none",
        )
    return planner.solve_masked(model, graph.enumerate_cuts(model), policy=policy, audit=audit, costs=costs, mask=mask)


def measure(
    model: graph.Model,
    *,
    policy: str | Path | planner.Policy,
    devices: Mapping[str, odla.DeviceSpec] | None = None,
    seed: int = 0,
    profiles: str | Path | None = None,
    measure_again: bool = False,
    masks: bool = False,
) -> planner.CostProfile:
    """Measure what every node costs in the enclave and on each device of the policy, and what it costs to get there.

    The arguments are those of ``plan``, which measures by itself unless it is given the result; with ``masks``, what
    layers cost under one-time pads is measured too.

    Raises:
        PolicyError: if the policy is malformed, or with ``masks`` its enclave or devices cannot have pads.
        TrustError: if the enclave cannot be launched or is not accepted.
        DeviceError: if a device is missing.
    """
    if not isinstance(policy, planner.Policy):
        policy = planner.load_policy(Path(policy))
    if masks:
        planner.devices_under_pads(policy)  # refused now rather than after the measuring
    with ExitStack() as stack:
        opened = {}
        for entry in policy.device:
            device = odla.open_device(runtime.device_spec(policy, entry.name, devices or {}))
            stack.callback(device.close)
            opened[entry.name] = device
        enclave = trust.launch(runtime.enclave_spec(policy))
        stack.callback(enclave.close)
        crossing = trust.measure_crossing(enclave)
        store = planner.ProfileStore(None if profiles is None else Path(profiles), measure_again=measure_again)
        cuts = graph.enumerate_cuts(model)
        costs = planner.measure_costs(
            model, cuts, policy=policy, devices=opened, crossing=crossing, seed=seed, store=store
        )
        switch_s = {name: trust.measure_switch(enclave, device) for name, device in opened.items()}
        costs = costs.with_overheads(request_s=runtime.measure_request(), switch_s=switch_s)
        return costs.model_copy(update={"masking": planner.measure_masking(model, policy, opened)}) if masks else costs


def explain(model: graph.Model, plan: planner.Plan, costs: planner.CostProfile) -> planner.Explanation:
    """Say of every node of a plan where it runs, what it costs there and elsewhere, how private it is, and why.

    Args:
        model: the model.
        plan: the plan.
        costs: what ``measure`` returned and ``plan`` was given.

    Raises:
        PlanError: if plan or costs belong to another model, or the costs lack a device.
    """
    return planner.explain_nodes(model, graph.enumerate_cuts(model), plan, costs)


def build(
    model: graph.Model,
    plan: str | Path | planner.Plan,
    out: str | Path,
    *,
    audit: str | Path | None = None,
    keystore: bundle.KeyStore | None = None,
    ahead_of_time: bool | Sequence[odla.DeviceSpec] = False,
    lineage: str | None = None,
    version: int | None = None,
    data: str | Path | leakage.Data | None = None,
) -> Path:
    """Write the deployable folder: parts, sealed weights, plan, audit, manifest and signature.

    Args:
        model: the model that the plan is for.
        plan: a plan, or its file.
        out: the folder to make.
        audit: folder of the audit that the plan rests on.
        keystore: signs, and keeps the new weight key; None for the default place.
        ahead_of_time: also compile the untrusted parts now: for their devices in the plan if true; or for each device
            whose name the plan has, such as one that compiles for another architecture.
        lineage: name of what has versions; None for the model's name.
        version: once it was opened, older ones of its lineage are refused; None for the newest that was opened with
            this key store.
        data: the data of the audit, or others like those to come; needed where the plan has layers under pads.

    Raises:
        DeviceError: if a part cannot be compiled ahead of time.
        DataError: if the data do not fit the model.
        PlanError: if the plan is not valid for the model and audit.
        BundleError: if it cannot be written; nothing is left behind then.
        TrustError: if a newer version was opened already.
    """
    if not isinstance(plan, planner.Plan):
        plan = planner.load_plan(Path(plan))
    export = None
    if ahead_of_time:
        specs = [] if ahead_of_time is True else list(ahead_of_time)
        export = runtime.exporter(plan.policy, specs)
    if data is not None and not isinstance(data, leakage.Data):
        data = leakage.load_data(Path(data), model, private_input=model.inputs[0].name)
    return bundle.build_bundle(
        model,
        plan,
        Path(out),
        keystore=keystore or bundle.KeyStore(),
        audit_folder=None if audit is None else Path(audit),
        export=export,
        lineage=lineage,
        version=version,
        calibration=data,
    )


def open(  # noqa: A001 - the verb that users know
    path: str | Path,
    *,
    keystore: bundle.KeyStore | None = None,
    devices: Mapping[str, odla.DeviceSpec] | None = None,
    observers: Sequence[runtime.Observer] = (),
) -> runtime.Session:
    """Check a bundle, launch and attest its enclave, and open its devices; use the session in a ``with`` block.

    Args:
        path: the bundle's folder.
        keystore: the owner's keys; None for the default place.
        devices: other ways to open the policy's devices, by name.
        observers: told of requests, calls, queues and moves: ``runtime.PrometheusMetrics`` for one.

    Raises:
        BundleError: if the bundle fails a check.
        TrustError: if the enclave is not accepted.
        DeviceError: if a device is missing.
    """
    return runtime.open_session(Path(path), keystore=keystore, devices=devices, observers=observers)


def write_report(
    out: str | Path,
    *,
    plan: str | Path,
    audit: str | Path | None = None,
    run: str | Path | None = None,
    explanation: str | Path | None = None,
    trainings: Sequence[str | Path] = (),
    tune: str | Path | None = None,
    before: str | Path | None = None,
) -> Path:
    """Write one self-contained HTML page from what the stages wrote.

    Raises:
        SinianError: naming the file that is malformed.
    """
    return report.write_report(
        Path(out),
        plan=Path(plan),
        audit=None if audit is None else Path(audit),
        run=None if run is None else Path(run),
        explanation=None if explanation is None else Path(explanation),
        trainings=[Path(each) for each in trainings],
        tune=None if tune is None else Path(tune),
        before=None if before is None else Path(before),
    )
