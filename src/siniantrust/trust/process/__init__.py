"""The first provider: an isolated process. Labelled ``simulated``, because the host's kernel still sees everything."""
