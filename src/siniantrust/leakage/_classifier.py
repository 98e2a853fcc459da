"""The audited model as a classifier: its answers as class probabilities."""

from __future__ import annotations

import numpy as np

from siniantrust.graph import Model
from siniantrust.leakage._observe import Observer, item_shape
from siniantrust.leakage._registry import Classifier

_MIN_CLASSES = 2


def class_scores(output: np.ndarray) -> np.ndarray | None:
    """Return the output as one score per class, (items, classes) float64; None if it is none or not finite."""
    flat = output.reshape(len(output), -1)
    if output.dtype.kind != "f" or flat.shape[1] < _MIN_CLASSES or max(output.shape[1:], default=0) != flat.shape[1]:
        return None
    return flat.astype(np.float64) if np.isfinite(flat).all() else None


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Return class probabilities: the scores themselves if they are some already, else their softmax."""
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def image_classifier(observer: Observer, model: Model, input_name: str, low: float, high: float) -> Classifier | None:
    """Return the model as a classifier of images in unit scale, of any size; None if it takes or gives anything else.

    Images are resized to the model's input and mapped back to ``low`` .. ``high``.
    """
    shape = item_shape(model, input_name)
    if len(model.inputs) > 1 or len(shape) != 3:  # noqa: PLR2004 - channels, height, width
        return None
    name, dtype = model.outputs[0].name, np.dtype(model.inputs[0].dtype)

    def run(images: np.ndarray) -> np.ndarray:
        import torch

        if images.shape[2:] != shape[1:]:
            images = torch.nn.functional.interpolate(torch.as_tensor(images), size=shape[1:], mode="bilinear").numpy()
        values = images * (high - low) + low
        values = np.rint(values).clip(0, 255) if dtype.kind == "u" else values
        return observer.run({input_name: values.astype(dtype)})[name]

    def classify(images: np.ndarray) -> np.ndarray:
        scores = class_scores(run(images))
        if scores is None:
            raise TypeError("the model is no classifier")
        return probabilities(scores)

    usable = class_scores(run(np.zeros((1, *shape), dtype=np.float32))) is not None
    return classify if usable else None
