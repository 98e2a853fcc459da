"""The plan written into the model itself."""

from __future__ import annotations

import onnx

from siniantrust.errors import PlanError
from siniantrust.graph import Model, with_device_configurations
from siniantrust.planner._plan import Plan


def annotate(model: Model, plan: Plan) -> onnx.ModelProto:
    """Return a copy of the model that says on which device each node runs (ONNX IR version 11).

    The copy holds all weights, those of the trusted parts among them: it is for the model's owner.

    Raises:
        PlanError: if the plan is for another model.
    """
    if plan.model_sha256 != model.sha256:
        raise PlanError(
            f"plan of '{plan.model_name}': made for model {plan.model_sha256[:12]}, "
            f"but the model is {model.sha256[:12]}; plan again"
        )
    assignment = {name: part.device for part in plan.parts for name in part.nodes}
    devices = list(dict.fromkeys(part.device for part in plan.parts))
    return with_device_configurations(model.proto, devices=devices, assignment=assignment)
