"""Parts inside the enclave: opened, checked and run with ONNX Runtime's CPU provider."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from siniantrust.errors import DataError, EnclaveError
from siniantrust.masking.exact import resident
from siniantrust.trust import _sealed
from siniantrust.trust.process._noise import PREFIX, PREPARED, NoiseFeed, NoiseInput, NoiseSource, law_of
from siniantrust.trust.process._prelude import Prelude

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
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_OPERATOR_TAG = 0x22  # of ``NodeProto.op_type`` in protobuf's encoding: field 4, a length and bytes


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
    made.disable_fallback()
    if made.get_providers() != [_PROVIDER]:
        raise EnclaveError(f"enclave: expected ONNX Runtime to use {_PROVIDER}, found {made.get_providers()}")
    return made


class LoadedPart:
    """A part that is ready to run.

    It is opened here rather than through ``siniantrust.odla``: what runs inside the enclave is measured and trusted,
    and should be as little as it can be. Its reserved inputs are filled here, from ``noise``; no caller can give them.
    """

    def __init__(self, name: str, model: bytes, *, threads: int, noise: NoiseSource) -> None:
        self._name = name
        self._session = session(model, threads=threads)
        prelude = self._session.get_modelmeta().custom_metadata_map.get(_sealed.PRELUDE_KEY)
        before = None if prelude is None else _prelude_session(name, base64.b64decode(prelude), threads)
        self._noise = noise_feed(name, self._session, before, noise)
        self._inputs = {
            entry.name: (_DTYPES.get(entry.type), tuple(entry.shape))
            for entry in self._session.get_inputs()
            if not entry.name.startswith(PREFIX)
        }
        self._outputs = [entry.name for entry in self._session.get_outputs()]

    def _check(self, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Check the inputs and return their free sizes by name."""
        sizes: dict[str, int] = {}
        if inputs.keys() != self._inputs.keys():
            raise DataError(f"part {self._name}: expected inputs {sorted(self._inputs)}, found {sorted(inputs)}")
        for name, array in inputs.items():
            dtype, shape = self._inputs[name]
            fits = len(array.shape) == len(shape) and all(
                size == found or not isinstance(size, int) for size, found in zip(shape, array.shape, strict=True)
            )
            if not fits or array.dtype != dtype:
                raise DataError(
                    f"part {self._name}: input {name}: expected {dtype} of shape {list(shape)}, found "
                    f"{array.dtype} of shape {list(array.shape)}"
                )
            sizes |= {size: found for size, found in zip(shape, array.shape, strict=True) if isinstance(size, str)}
        return sizes

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run; return the outputs by name. They share ONNX Runtime's buffers, which nothing else writes.

        Raises:
            DataError: if the inputs do not fit.
            EnclaveError: if an output is no tensor.
        """
        fed = {**inputs, **self._noise.take(self._check(inputs))}
        outputs = dict(zip(self._outputs, self._session.run(self._outputs, fed), strict=True))
        for name, array in outputs.items():
            if not isinstance(array, np.ndarray):
                raise EnclaveError(f"part {self._name}: output {name} is a {type(array).__name__}, expected a tensor")
        return outputs

    def draw_ahead(self) -> None:
        """Draw the noise of the next run, so that it need not wait for it."""
        self._noise.draw_ahead()


def open_sealed(
    name: str,
    *,
    skeleton: memoryview,
    sealed: memoryview,
    key: memoryview,
    context: memoryview,
    threads: int,
    noise: NoiseSource,
) -> LoadedPart | resident.ResidentProgram:
    """Open a sealed part, or a program for exact masks, and make it ready.

    The weights are themselves a serialised model that holds initialisers only; appended to the skeleton they merge with
    it, because protobuf parsers merge a message that appears twice (protobuf encoding guide, "Last One Wins").

    Raises:
        TrustError: if the seal does not open.
        EnclaveError: if ONNX Runtime refuses the part, or it would draw random numbers by itself.
        PlanError: if a bound of the program's cannot be proven.
    """
    weights = _sealed.open_in_place(sealed, skeleton=skeleton, key=key, context=context)
    if skeleton[: len(resident.MAGIC)] == resident.MAGIC:
        return resident.ResidentProgram(
            bytes(skeleton), weights, lambda model: _loaded(name, model, threads, noise).run
        )
    return _loaded(name, b"".join((skeleton, weights)), threads, noise)


def noise_feed(name: str, part: Any, prelude: Any | None, source: NoiseSource) -> NoiseFeed:
    """Return what fills the reserved inputs of a part, which is given as a session, as its prelude is.

    Raises:
        EnclaveError: if an input has a reserved name that says no law, or prelude and part do not fit.
    """
    entries = [entry for entry in part.get_inputs() if entry.name.startswith(PREFIX)]
    made = Prelude(name, prelude, [entry.name for entry in entries])
    drawn = {
        entry.name: NoiseInput(entry.name, law_of(entry.name), _DTYPES[entry.type], tuple(entry.shape))
        for entry in (*entries, *made.inputs)
        if not entry.name.startswith(PREPARED)
    }
    return NoiseFeed(list(drawn.values()), source, made.prepare)


def _prelude_session(name: str, model: bytes, threads: int) -> Any:
    _refuse_random(name, model)
    return session(model, threads=threads)


def _loaded(name: str, model: bytes, threads: int, noise: NoiseSource) -> LoadedPart:
    _refuse_random(name, model)
    return LoadedPart(name, model, threads=threads, noise=noise)


def _refuse_random(name: str, model: bytes) -> None:
    for operator in _RANDOM:
        if bytes((_OPERATOR_TAG, len(operator))) + operator.encode() in model:
            raise EnclaveError(
                f"part {name}: it holds the operator {operator}, whose numbers ONNX Runtime would draw, not the "
                "enclave; seal it again with this version"
            )
