"""Policy, cost model, exact solver, and an independent validator of plans."""

from siniantrust.planner._annotate import annotate
from siniantrust.planner._costs import AffineCost, ComputeCost, CostProfile
from siniantrust.planner._explain_nodes import explain_nodes
from siniantrust.planner._explanation import Explanation, NodeExplanation, NodeRun, save_explanation
from siniantrust.planner._measure import measure_costs
from siniantrust.planner._plan import (
    ENCLAVE,
    Alternative,
    CostTerm,
    LabelledValue,
    Plan,
    PlannedPart,
    Prediction,
)
from siniantrust.planner._plan_file import dump_plan, load_plan, parse_plan, plan_schema, save_plan
from siniantrust.planner._policy import (
    DevicePolicy,
    EnclavePolicy,
    LeakagePolicy,
    ObjectivePolicy,
    Policy,
    ServingPolicy,
    load_policy,
    parse_policy,
)
from siniantrust.planner._policy_reference import policy_reference
from siniantrust.planner._profile_store import ProfileStore
from siniantrust.planner._solve import solve
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
    "NodeExplanation",
    "NodeRun",
    "ObjectivePolicy",
    "Plan",
    "PlannedPart",
    "Policy",
    "Prediction",
    "ProfileStore",
    "ServingPolicy",
    "annotate",
    "dump_plan",
    "enclave_bytes",
    "explain_nodes",
    "find_violations",
    "load_plan",
    "load_policy",
    "measure_costs",
    "move_violations",
    "parse_plan",
    "parse_policy",
    "plan_schema",
    "policy_reference",
    "save_explanation",
    "save_plan",
    "solve",
    "validate_plan",
]
