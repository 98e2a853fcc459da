from __future__ import annotations

from pathlib import Path

from leakage_cases import small_network, write_network

from siniantrust.graph import enumerate_cuts, load_model
from siniantrust.leakage import AttackResult, CutAudit, Estimate
from siniantrust.leakage._downstream import with_downstream


def _audited(cut_id: str, tensor: str, leaks: dict[str, float], *, gain: float = 0.0) -> CutAudit:
    figures = {
        metric: Estimate(mean=leak, worst_5pct=leak, upper=leak + 0.01, raw=leak, prior=0.0)
        for metric, leak in leaks.items()
    }
    result = AttackResult(
        leakage=figures,
        converged=gain <= 0.03,
        gain=gain,
        gains=dict.fromkeys(leaks, gain),
        detail="regression",
        time_s=1.0,
        picture=f"{tensor}.png",
    )
    return CutAudit(
        cut_id=cut_id,
        tensors=(tensor,),
        screens={},
        attacks={"ridge": result},
        leakage=figures,
        best_attack=dict.fromkeys(leaks, "ridge"),
        converged=result.converged,
    )


def test_an_earlier_cut_leaks_at_least_what_a_later_one_does(tmp_path: Path) -> None:
    """Where the attack does better at a later cut, that figure, its picture and its convergence count earlier too."""
    model = load_model(write_network(tmp_path / "model.onnx", small_network()))
    cuts = [cut for cut in enumerate_cuts(model).cuts if cut.tensors in (("mixed",), ("r1",), ("r2",))]
    given = [
        _audited(cuts[0].id, "mixed", {"ssim": 0.9, "nmse": 0.9}),
        _audited(cuts[1].id, "r1", {"ssim": 0.2, "nmse": 0.8}),
        _audited(cuts[2].id, "r2", {"ssim": 0.5, "nmse": 0.3}, gain=0.2),
    ]
    first, second, third = with_downstream(model, cuts, given, tolerance=0.03)
    assert (first, third) == (given[0], given[2])
    assert second.leakage == {"ssim": given[2].leakage["ssim"], "nmse": given[1].leakage["nmse"]}
    assert second.best_attack == {"ssim": "downstream", "nmse": "ridge"}
    assert second.attacks["downstream"].picture == "r2.png"
    assert f"ssim: ridge at {cuts[2].id}" in second.attacks["downstream"].detail
    assert given[1].converged
    assert not second.converged
