"""Parts inside the enclave: opened, checked and run with ONNX Runtime's CPU provider."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from siniantrust.errors import DataError, EnclaveError
from siniantrust.trust import _sealed
from siniantrust.trust._channel import Payload
from siniantrust.trust._codec import TensorSpec

# What to send, and the object that owns the memory that it points to.
Owned = tuple[Payload, object]

_PROVIDER = "CPUExecutionProvider"
_SILENT = 4
_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}


def one_line(fault: BaseException) -> str:
    """Return a library's message as one line of bearable length."""
    return " ".join(str(fault).split())[:2000] or type(fault).__name__


def session(model: bytes, *, threads: int) -> Any:
    """Return an ONNX Runtime session that runs on the CPU provider and nothing else."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _SILENT
    made = onnxruntime.InferenceSession(model, sess_options=options, providers=[_PROVIDER])
    if made.get_providers() != [_PROVIDER]:
        raise EnclaveError(f"enclave: expected ONNX Runtime to use {_PROVIDER}, found {made.get_providers()}")
    return made


class LoadedPart:
    """A part that is ready to run.

    It is opened here rather than through ``siniantrust.odla``: what runs inside the enclave is measured and trusted,
    and should be as little as it can be.
    """

    def __init__(self, name: str, model: bytes, *, threads: int) -> None:
        self._name = name
        self._session = session(model, threads=threads)
        self._inputs = {entry.name: entry for entry in self._session.get_inputs()}
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def _check(self, inputs: Mapping[str, np.ndarray]) -> None:
        if set(inputs) != set(self._inputs):
            raise DataError(f"part {self._name}: expected inputs {sorted(self._inputs)}, found {sorted(inputs)}")
        for name, array in inputs.items():
            wanted = self._inputs[name]
            fits = len(array.shape) == len(wanted.shape) and all(
                not isinstance(size, int) or size == found
                for size, found in zip(wanted.shape, array.shape, strict=True)
            )
            if not fits or array.dtype.name != _DTYPES.get(wanted.type):
                raise DataError(
                    f"part {self._name}: input {name}: expected {wanted.type} of shape {wanted.shape}, found "
                    f"{array.dtype} of shape {list(array.shape)}"
                )

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[Owned]:
        """Run; return each output as what to send, straight from ONNX Runtime's buffer, and the owner of that buffer.

        Raises:
            DataError: if the inputs do not fit.
            EnclaveError: if an output has a type that does not travel.
        """
        self._check(inputs)
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        outputs = self._session.run_with_ort_values(self._outputs, values)
        return [(_view(name, value), value) for name, value in zip(self._outputs, outputs, strict=True)]


def _view(name: str, value: Any) -> Payload:
    """Return an OrtValue's elements as bytes without copying them."""
    dtype = _DTYPES.get(value.data_type())
    if dtype is None:
        raise EnclaveError(f"enclave: output {name} is {value.data_type()}, which does not travel")
    spec = TensorSpec(name, dtype, tuple(value.shape()))
    if spec.size_bytes == 0:
        return spec, memoryview(b"")
    return spec, memoryview((ctypes.c_ubyte * spec.size_bytes).from_address(value.data_ptr())).cast("B")


def open_sealed(
    name: str, *, skeleton: memoryview, sealed: memoryview, key: memoryview, context: memoryview, threads: int
) -> LoadedPart:
    """Open a sealed part and make it ready.

    The weights are themselves a serialised model that holds initialisers only; appended to the skeleton they merge with
    it, because protobuf parsers merge a message that appears twice (protobuf encoding guide, "Last One Wins").

    Raises:
        TrustError: if the seal does not open.
        EnclaveError: if ONNX Runtime refuses the part.
    """
    weights = _sealed.open_in_place(sealed, skeleton=skeleton, key=key, context=context)
    model = b"".join((skeleton, weights))
    return LoadedPart(name, model, threads=threads)
