"""Deployments whose private part has layers under pads, planned with made-up costs and built on random data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from exact_models import loaded, residual_network
from planner_models import make_audit, make_costs
from runtime_deployments import simulated_policy

from siniantrust.bundle import KeyStore, build_bundle
from siniantrust.graph import Model, enumerate_cuts
from siniantrust.leakage import Data
from siniantrust.leakage._audit_file import audit_bytes, sealed
from siniantrust.masking.exact import QuantisedModel, build_program, calibrate, offerable
from siniantrust.masking.exact._work import layer_works
from siniantrust.odla import DeviceSpec
from siniantrust.planner import AffineCost, CostProfile, MaskingProfile, Plan, Policy, solve_masked
from siniantrust.runtime import Observer, Session, open_session

ITEMS = 60


@dataclass(frozen=True)
class MaskedDeployment:
    """A model with layers under pads, the bundle, and the items that it was quantised on."""

    model: Model
    plan: Plan
    path: Path
    keystore: KeyStore
    data: Data

    def open(self, devices: Mapping[str, DeviceSpec] | None = None, *observers: Observer) -> Session:
        """Open a session over the bundle."""
        return open_session(self.path, keystore=self.keystore, devices=devices, observers=observers)

    def inputs(self, batch: int = 1, *, seed: int = 7) -> dict[str, np.ndarray]:
        """Draw random inputs."""
        return {"x": _items(self.model, batch, seed)}

    def quantised(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the quantised model's answer, computed in this process with nothing masked, of a plan without cuts."""
        assert self.plan.masking is not None
        held = self.data.heldout
        assert held is not None
        entries = list(dict.fromkeys(layer.entry for layer in self.plan.masking.layers))
        scales = calibrate(self.model, entries, {"x": self.data.inputs[~held]})
        program = build_program(self.model, [layer.node for layer in self.plan.masking.layers], scales)
        with QuantisedModel(program) as quantised:
            return quantised.run(inputs)[self.model.outputs[0].name].copy()


def _items(model: Model, count: int, seed: int) -> np.ndarray:
    shape = (count, *model.inputs[0].shape[1:])
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def masked_costs(model: Model, *devices: str, product_s: float = 1e-6) -> CostProfile:
    """Return costs under which masking costs next to nothing, and every multiplication inside ``product_s``."""
    names = [name for name, reason in offerable(model).items() if reason is None]
    masking = MaskingProfile(
        mask_s=1e-12,
        quantise_s=1e-12,
        verify_s=1e-12,
        unmask_s=1e-12,
        layer_s=1e-9,
        product_s=product_s,
        point_s=product_s,
        weight_s=0.0,
        pass_s=1e-12,
        handover_s=1e-9,
        device_s={device: dict.fromkeys(names, 1e-5) for device in devices},
        prepare_s=dict.fromkeys(names, 1e-4),
        refused={},
        basis="made up",
    )
    free = AffineCost(base_s=0.0, seconds_per_byte_in=0.0, seconds_per_byte_out=0.0, basis="made up")
    moves = {"crossing": free, "transfers": dict.fromkeys(devices, free)}
    made = make_costs(model, devices)
    inside_s = {name: product_s * work.products for name, work in layer_works(model, {}).items()}
    trusted = made.trusted.model_copy(update={"latency_s": {**made.trusted.latency_s, **inside_s}})
    return made.model_copy(update={"masking": masking, "trusted": trusted, **moves})


def deploy_masked(
    folder: Path,
    *,
    model: Model | None = None,
    mask: str = "exact",
    cut: str | None = None,
    devices: tuple[str, ...] = ("cloud",),
    **policy: object,
) -> MaskedDeployment:
    """Build a bundle below ``folder``; with ``cut``, what crosses there and later leaks nothing, all before everything.

    ``policy`` has top-level fields; devices after the first take over from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = model or loaded(residual_network(), folder)
    fields: dict[str, object] = {
        "device": [{"name": name, "options": {"threads": 1}} for name in devices],
        "serving": {"takeover": list(devices[1:]), "call_timeout_s": 10.0},
        "objective": {"allow_all_trusted": True},
        **policy,
    }
    wanted: Policy = simulated_policy(**fields)
    cuts = enumerate_cuts(model)
    audit = None
    if cut is not None:
        order = [each.id for each in cuts.cuts]
        first = next(order.index(each.id) for each in cuts.cuts if each.tensors == (cut,))
        leakage = {name: float(index < first) for index, name in enumerate(order)}
        audit = sealed(make_audit(model, cuts, leakage, input_name="x"))
        (folder / "audit").mkdir()
        (folder / "audit" / "audit.json").write_bytes(audit_bytes(audit))
    plan = solve_masked(
        model,
        cuts,
        policy=wanted,
        audit=audit,
        costs=masked_costs(model, *devices),
        mask=mask,  # type: ignore[arg-type]
    )
    data = Data(_items(model, ITEMS, 3), None, "x", heldout=np.arange(ITEMS) >= ITEMS * 2 // 3)
    keystore = KeyStore(folder / "keys")
    audit_folder = None if audit is None else folder / "audit"
    path = build_bundle(model, plan, folder / "deploy", keystore=keystore, audit_folder=audit_folder, calibration=data)
    return MaskedDeployment(model, plan, path, keystore, data)
