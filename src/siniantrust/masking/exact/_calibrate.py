"""Calibration: how large the values get that are quantised, on data like those to come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from siniantrust.errors import DataError
from siniantrust.graph import Model
from siniantrust.masking.exact._ring import QUANTISED_MAX

_BATCH_ITEMS = 16
_QUANTILE = 0.9999
_SAMPLE_NUMBERS = 1 << 16


def calibrate(model: Model, names: Iterable[str], inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return what one of 127 steps is worth for each value: its 99.99 % quantile over ``inputs`` by 127.

    Clipping the rarest values costs less than coarse steps for all of them (Krishnamoorthi 2018, section 3.3, compares
    such rules). A value that never differs from zero gets steps of 1.

    Args:
        model: the model.
        names: values to be quantised.
        inputs: arrays (N, ...) for every input of the model.

    Raises:
        DataError: if there are no items, or a value is not finite on them.
    """
    import onnxruntime

    wanted = list(dict.fromkeys(names))
    count = min((len(array) for array in inputs.values()), default=0)
    if not count:
        raise DataError("calibration: expected at least one item for every input, found none")
    sources = {tensor.name for tensor in model.inputs}
    observed = [name for name in wanted if name not in sources]
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    ends = {output.name for output in proto.graph.output}
    types = {value.name: value for value in proto.graph.value_info}
    proto.graph.output.extend(types[name] for name in observed if name not in ends)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    items = 1 if model.batch_symbol is None else _BATCH_ITEMS
    samples: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    generator = np.random.default_rng(0)
    for start in range(0, count - items + 1 if model.batch_symbol is None else count, items):
        fed = {name: np.asarray(array[start : start + items], dtype=np.float32) for name, array in inputs.items()}
        found = dict(zip(observed, session.run(observed, fed) if observed else [], strict=True)) | fed
        for name in wanted:
            flat = np.abs(found[name]).reshape(-1)
            if not np.isfinite(flat).all():
                raise DataError(f"calibration: value '{name}' is not finite for items {start} to {start + items - 1}")
            if len(flat) > _SAMPLE_NUMBERS:
                # The largest are what the quantile is about; a random part would miss them.
                flat = np.concatenate([generator.choice(flat, _SAMPLE_NUMBERS, replace=False), [flat.max()]])
            samples[name].append(flat)
    scales = {}
    for name, parts in samples.items():
        largest = float(np.quantile(np.concatenate(parts), _QUANTILE))
        scales[name] = largest / QUANTISED_MAX if largest > 0 else 1.0
    return scales
