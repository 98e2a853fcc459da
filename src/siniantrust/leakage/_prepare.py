"""Before the attacks: where finished work is kept, and one pass of the model over the data."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from siniantrust import _progress
from siniantrust.errors import AuditError
from siniantrust.graph import Cut, Model
from siniantrust.leakage._collect import collect, load_collected
from siniantrust.leakage._data import Data
from siniantrust.leakage._features import Observed
from siniantrust.leakage._observe import Observer
from siniantrust.leakage._random import random_tensors
from siniantrust.leakage._setting import Setting
from siniantrust.leakage._store import Store, open_store
from siniantrust.leakage._study import Study


@contextmanager
def opened_store(
    model: Model, data: Data, cuts: Sequence[Cut], setting: Setting, cache: Path | None
) -> Iterator[Store]:
    """Open where finished work is kept: in ``cache``, or in a folder that vanishes at the end."""
    budget = setting.budget
    with ExitStack() as stack:
        where = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="siniantrust-audit-")))
        content = {
            "model": model.sha256,
            "data": data.sha256(),
            "seed": setting.seed,
            "split": [len(setting.split.attacker), len(setting.split.validation), len(setting.split.heldout)],
            "cuts": [[cut.id, *cut.tensors] for cut in cuts],
            "kept": [budget.feature_elements, budget.max_side, budget.repeats],
        }
        try:
            yield open_store(where, content)
        except OSError as error:
            raise AuditError(
                f"audit cache {where}: cannot be written ({error.strerror or error}); free some space, or name another "
                "folder; what was finished is kept"
            ) from error


def make_study(
    model: Model, data: Data, cuts: Sequence[Cut], setting: Setting, store: Store, threads: int, step: _progress.Step
) -> Study:
    """Observe the model on the data, or take what was kept."""
    watched = list(dict.fromkeys(name for cut in cuts for name in cut.tensors))
    inputs = {name: array[setting.split.order] for name, array in data.arrays().items()}

    def seen(names: Sequence[str], folder: Path, repeats: int, note: _progress.Step) -> Observed:
        kept = load_collected(folder)
        if kept is not None:
            note("features")
            return kept
        with Observer(model, names, threads=threads) as observer:
            return collect(
                observer,
                inputs,
                names,
                setting.budget,
                seed=setting.seed,
                folder=folder,
                step=note,
                repeats=repeats,
            )

    def quiet(description: str, *, advance: float = 1.0) -> None:
        step(description, advance=0 * advance)

    observed = seen(watched, store.features, 1, step)
    averaged = None
    noisy = [name for name in watched if name in random_tensors(model)]
    if noisy:
        means = seen(noisy, store.averaged, setting.budget.repeats, quiet)
        averaged = Observed(
            stores={**observed.stores, **means.stores},
            encoders={**observed.encoders, **means.encoders},
            refused={**observed.refused, **means.refused},
            outputs=observed.outputs,
        )
    return Study(model, data.input_name, setting, averaged=averaged, observed=observed, store=store)
