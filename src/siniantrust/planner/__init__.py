"""Policy, cost model, exact solver, and an independent validator of plans."""

from siniantrust.planner._annotate import annotate
from siniantrust.planner._costs import AffineCost, ComputeCost, CostProfile, MaskingProfile
from siniantrust.planner._explain_nodes import explain_nodes
from siniantrust.planner._explanation import Explanation, NodeExplanation, NodeRun, save_explanation
from siniantrust.planner._masked_costs import devices_under_pads
from siniantrust.planner._measure import measure_costs
from siniantrust.planner._measure_masking import measure_masking
from siniantrust.planner._plan import (
    ENCLAVE,
    Alternative,
    CostTerm,
    LabelledValue,
    Masking,
    PaddedLayer,
    PaddedValue,
    Plan,
    PlannedPart,
    Prediction,
)
from siniantrust.planner._plan_file import dump_plan, load_plan, parse_plan, plan_schema, save_plan
from siniantrust.planner._policy import (
    DevicePolicy,
    EnclavePolicy,
    LeakagePolicy,
    MaskingPolicy,
    ObjectivePolicy,
    Policy,
    ServingPolicy,
    load_policy,
    parse_policy,
)
from siniantrust.planner._policy_reference import policy_reference
from siniantrust.planner._profile_store import ProfileStore
from siniantrust.planner._solve import solve
from siniantrust.planner._solve_masked import Mask, solve_masked
from siniantrust.planner._validate import find_violations, validate_plan
from siniantrust.planner._validate_clearance import move_violations
from siniantrust.planner._validate_memory import enclave_bytes

__all__ = [
    "ENCLAVE",
    "AffineCost",
    "Alternative",
    "ComputeCost",
    "CostProfile",
    "CostTerm",
    "DevicePolicy",
    "EnclavePolicy",
    "Explanation",
    "LabelledValue",
    "LeakagePolicy",
    "Mask",
    "Masking",
    "MaskingPolicy",
    "MaskingProfile",
    "NodeExplanation",
    "NodeRun",
    "ObjectivePolicy",
    "PaddedLayer",
    "PaddedValue",
    "Plan",
    "PlannedPart",
    "Policy",
    "Prediction",
    "ProfileStore",
    "ServingPolicy",
    "annotate",
    "devices_under_pads",
    "dump_plan",
    "enclave_bytes",
    "explain_nodes",
    "find_violations",
    "load_plan",
    "load_policy",
    "measure_costs",
    "measure_masking",
    "move_violations",
    "parse_plan",
    "parse_policy",
    "plan_schema",
    "policy_reference",
    "save_explanation",
    "save_plan",
    "solve",
    "solve_masked",
    "validate_plan",
]
