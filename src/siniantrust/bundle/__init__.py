"""The deployable folder: parts, plan, hashes, signature and sealed weights."""
