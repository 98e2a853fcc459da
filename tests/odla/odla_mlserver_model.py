"""A model for MLServer, a server that nobody here wrote: a dense layer with an activation, computed by numpy.

MLServer loads it in an environment of its own, so that it imports nothing of SinianTrust.
"""

from __future__ import annotations

import numpy as np
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]
from mlserver.utils import get_model_uri  # type: ignore[import-not-found]


class DenseModel(MLModel):  # type: ignore[misc]
    """``relu(x @ w + b)`` with the weights of an ``.npz`` file."""

    async def load(self) -> bool:
        """Read the weights."""
        with np.load(await get_model_uri(self._settings)) as weights:
            self._w, self._b = weights["w"], weights["b"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Compute one request."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = np.maximum(x @ self._w + self._b, 0).astype(np.float32)
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output(name="y", payload=y)],
        )
