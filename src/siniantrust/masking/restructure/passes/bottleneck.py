"""Fewer channels at the cut: what crosses is squeezed before it and widened behind it."""

from __future__ import annotations

import numpy as np

from siniantrust.masking.restructure._editor import Editor
from siniantrust.masking.restructure._observe import observe
from siniantrust.masking.restructure._pass import Pass, RestructureError, Rewritten, Subject

_MOST_CHANNELS = 4096
_MATRIX = 2
# Of the largest variance; channels of less are not blown up further.
_LEAST_SHARE = 1e-6


def run(subject: Subject) -> Rewritten:
    """Send ``amount`` channels in place of all: a 1 x 1 convolution before the cut and one behind it.

    They begin as the principal components of what crosses, the linear pair that loses least on the given items, each
    scaled to a variance of 1: noise and levels behind them have one size for all channels. A vector (N, C) is
    multiplied by matrices instead.
    """
    kept = round(subject.amount)
    tensor = subject.model.tensors[subject.tensor]
    channels = tensor.shape[1] if len(tensor.shape) >= _MATRIX else 0
    if tensor.batch_axis != 0 or kept >= channels:
        raise RestructureError(
            f"cut '{subject.cut.id}': {channels} channels cross; a bottleneck of {kept} makes them no fewer"
        )
    values = np.moveaxis(observe(subject.model, subject.inputs, subject.tensor), 1, -1).reshape(-1, channels)
    mean = values.mean(axis=0, dtype=np.float64)
    variances, vectors = np.linalg.eigh(np.cov(values.astype(np.float64), rowvar=False))
    basis = vectors[:, ::-1][:, :kept].T
    # Where nothing varies, nothing is scaled.
    least = variances[-1] * _LEAST_SHARE or 1.0
    scales = np.sqrt(np.maximum(variances[::-1][:kept], least))[:, None]
    editor = Editor(subject.model, subject.cut)
    maker = editor.maker(subject.tensor)
    if maker is None:
        raise RestructureError(f"cut '{subject.cut.id}': it is the model's input that crosses; cut behind a node")
    ones = [1] * (len(tensor.shape) - _MATRIX)
    made = {
        "squeeze": (basis / scales).reshape(kept, channels, *ones),
        "squeeze_bias": -(basis / scales) @ mean,
        "widen": (basis * scales).T.reshape(channels, kept, *ones),
        "widen_bias": mean,
    }
    names = {name: editor.add(f"{subject.tensor}_{name}", each.astype(tensor.dtype)) for name, each in made.items()}
    narrow, wide = editor.fresh(f"{subject.tensor}_narrow"), editor.fresh(f"{subject.tensor}_wide")
    kind, more = ("Conv", {}) if ones else ("Gemm", {"transB": 1})
    squeeze = editor.make(kind, [subject.tensor, names["squeeze"], names["squeeze_bias"]], narrow, **more)
    widen = editor.make(kind, [narrow, names["widen"], names["widen_bias"]], wide, **more)
    editor.redirect(subject.tensor, wide)
    editor.put_behind(maker, squeeze, widen)
    return Rewritten(editor.finish(), narrow, (f"{channels} channels that cross are {kept}",))


PASS = Pass(
    title="Bottleneck at the cut",
    source="Eshratifar, Esmaili, Pedram 2019, BottleNet; begun as principal components (Pearson 1901)",
    amount="channels that cross",
    default=None,
    lowest=1,
    highest=_MOST_CHANNELS,
    run=run,
)
