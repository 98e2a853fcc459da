"""Policy, cost model, exact solver, and an independent validator of plans."""
