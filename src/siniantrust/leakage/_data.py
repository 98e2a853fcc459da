"""The data an audit runs on: read from a file and held against the model's input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from siniantrust.errors import DataError
from siniantrust.graph import Model, Tensor
from siniantrust.leakage._arrays import read_arrays
from siniantrust.leakage._observe import item_shape

_INPUT_KEYS = ("inputs", "x")
_LABEL_KEYS = ("labels", "y")
_HELDOUT_KEY = "heldout"
_ATTRIBUTE_KEY = "attribute"
_TRANSCRIPT_KEY = "transcript"
_RATE_KEY = "sample_rate"
# Quantities, and token numbers, of which nearness means nothing.
_DTYPES = ("float16", "float32", "float64", "uint8", "int32", "int64")
_MAX_SOUND_RANK = 3
# Recognition takes memory with the square of a text's length.
_MAX_CHARACTERS = 1000
_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


@dataclass(frozen=True, slots=True)
class Data:
    """Items of the private input: ``inputs`` (N, *item shape), ``labels`` (N,) if known.

    ``others`` holds the model's other inputs by name, one row per item: what accompanies the private one. ``heldout``
    (N,), boolean, marks the items that leakage is measured on and no attacker learns from; None lets chance choose.
    ``attribute`` (N,) is a private label that nobody should learn from the features: who speaks, say.
    ``transcript`` (N,) is text: what is said or written in each item. With ``sample_rate_hz`` the items are sounds
    (samples,) or (1, samples), and leakage is that of their spectrograms.
    """

    inputs: np.ndarray = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    input_name: str
    others: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    heldout: np.ndarray | None = field(default=None, repr=False)
    attribute: np.ndarray | None = field(default=None, repr=False)
    sample_rate_hz: int | None = None
    transcript: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.inputs)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return every input of the model by name."""
        return {self.input_name: self.inputs, **self.others}

    def sha256(self) -> str:
        """Return a hash over names, dtypes, shapes and values of everything in it."""
        digest = hashlib.sha256()
        named = dict(sorted(self.arrays().items()))
        if self.labels is not None:
            named[" labels"] = self.labels
        if self.heldout is not None:
            named[" heldout"] = self.heldout
        if self.attribute is not None:
            named[" attribute"] = self.attribute
        if self.transcript is not None:
            named[" transcript"] = self.transcript
        if self.sample_rate_hz is not None:
            named[" sample_rate"] = np.asarray(self.sample_rate_hz)
        for name, array in named.items():
            digest.update(f"{name} {array.dtype} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_data(path: Path, model: Model, *, private_input: str | None = None) -> Data:
    """Read items from a ``.npy`` or ``.npz`` file and check them against the model's inputs.

    An ``.npz`` holds the private input under its name, ``inputs`` or ``x``; optionally labels under ``labels`` or
    ``y``, booleans under ``heldout`` that mark the items no attacker may learn from, integers under ``attribute`` (a
    private label), text under ``transcript`` (what is said or written), and for sounds their ``sample_rate`` in Hz. A
    model with several inputs needs ``private_input`` and an ``.npz`` with every input under its own name.

    Raises:
        DataError: if the file cannot be read, a key is missing or unknown, or an array is empty, not finite, or of
            another shape or dtype than the model's input.
    """
    private = _private(model, private_input)
    arrays = read_arrays(path)
    names = [tensor.name for tensor in model.inputs]
    if path.suffix == ".npy":
        arrays = {private: arrays[""]}
    if len(names) == 1 and private not in arrays:
        arrays = {private if key == _first(_INPUT_KEYS, arrays) else key: value for key, value in arrays.items()}
    label_key = _first([key for key in _LABEL_KEYS if key not in names], arrays)
    labels = None if label_key is None else arrays.pop(label_key)
    heldout, attribute, rate, transcript = (
        None if key in names else arrays.pop(key, None)
        for key in (_HELDOUT_KEY, _ATTRIBUTE_KEY, _RATE_KEY, _TRANSCRIPT_KEY)
    )
    for name in names:
        if name not in arrays:
            raise DataError(f"data {path}: key '{name}' is missing; expected {_listed(names)}, found {_listed(arrays)}")
    if unknown := [key for key in arrays if key not in names]:
        raise DataError(f"data {path}: key '{unknown[0]}' is unknown; the model's inputs are {_listed(names)}")
    data = Data(
        inputs=arrays[private],
        labels=labels,
        input_name=private,
        others={name: arrays[name] for name in names if name != private},
        heldout=heldout,
        attribute=attribute,
        sample_rate_hz=None if rate is None else _rate(rate, origin=str(path)),
        transcript=transcript,
    )
    check_data(data, model, origin=str(path))
    return data


def check_data(data: Data, model: Model, *, origin: str) -> None:
    """Check that ``data`` fits the model; ``origin`` names it in errors.

    Raises:
        DataError: if an array is empty, not finite, or of another shape, dtype or length than expected.
    """
    tensors = {tensor.name: tensor for tensor in model.inputs}
    if data.input_name not in tensors or set(data.arrays()) != set(tensors):
        raise DataError(f"data {origin}: expected inputs {_listed(tensors)}, found {_listed(data.arrays())}")
    if tensors[data.input_name].dtype not in _DTYPES:
        raise DataError(
            f"data {origin}: input '{data.input_name}' is {tensors[data.input_name].dtype}; the attacks reconstruct "
            f"{', '.join(_DTYPES)} only"
        )
    for name, array in data.arrays().items():
        _check_array(array, tensors[name], item_shape(model, name), origin=f"data {origin}: '{name}'")
        if len(array) != len(data):
            raise DataError(f"data {origin}: '{name}' has {len(array)} items, '{data.input_name}' has {len(data)}")
    for name, numbers in (("labels", data.labels), ("attribute", data.attribute)):
        if numbers is not None and (numbers.dtype.kind not in "iu" or numbers.shape != (len(data),)):
            raise DataError(
                f"data {origin}: {name}: expected integers of shape ({len(data)},), "
                f"found {numbers.dtype} {numbers.shape}"
            )
    if data.sample_rate_hz is not None:
        _check_sound(data, origin=origin)
    if data.transcript is not None:
        _check_transcript(data.transcript, len(data), origin=f"data {origin}: transcript")
    heldout = data.heldout
    if heldout is not None and (heldout.dtype != np.bool_ or heldout.shape != (len(data),)):
        raise DataError(
            f"data {origin}: heldout: expected booleans of shape ({len(data)},), found {heldout.dtype} {heldout.shape}"
        )


def _check_sound(data: Data, *, origin: str) -> None:
    inputs = data.inputs
    if (
        inputs.dtype.kind != "f"
        or inputs.ndim > _MAX_SOUND_RANK
        or (inputs.ndim == _MAX_SOUND_RANK and inputs.shape[1] != 1)
    ):
        raise DataError(
            f"data {origin}: sample_rate is given, so '{data.input_name}' must be sounds of shape (N, samples) or "
            f"(N, 1, samples) in floating point; found {inputs.dtype} {inputs.shape}"
        )


def _check_transcript(texts: np.ndarray, count: int, *, origin: str) -> None:
    if texts.dtype.kind != "U" or texts.shape != (count,):
        raise DataError(f"{origin}: expected text (str) of shape ({count},), found {texts.dtype} {texts.shape}")
    lengths = np.strings.str_len(texts)
    blank = (lengths == 0) | np.strings.isspace(texts)
    if blank.any():
        raise DataError(f"{origin}: expected words for every item, found none in item {blank.argmax()}; leave it out")
    letters = np.ascontiguousarray(texts).view(np.dtype(np.uint32).newbyteorder(texts.dtype.byteorder))
    if ((letters > _LAST_CODE_POINT) | ((letters >= _SURROGATES[0]) & (letters <= _SURROGATES[1]))).any():
        raise DataError(f"{origin}: expected Unicode text, found numbers that stand for no character")
    if lengths.max() > _MAX_CHARACTERS:
        raise DataError(
            f"{origin}: expected at most {_MAX_CHARACTERS:,} characters, found {lengths.max():,} in item "
            f"{lengths.argmax()}; cut the items into shorter ones"
        )


def _rate(value: np.ndarray, *, origin: str) -> int:
    if value.size != 1 or value.dtype.kind not in "iu" or int(value.reshape(())) <= 0:
        raise DataError(f"data {origin}: sample_rate: expected one positive integer, found {value.dtype} {value.shape}")
    return int(value.reshape(()))


def _private(model: Model, name: str | None) -> str:
    names = [tensor.name for tensor in model.inputs]
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise DataError(f"the model has several inputs ({_listed(names)}); name the private one")
    if name not in names:
        raise DataError(f"private input '{name}' is not an input of the model; it has {_listed(names)}")
    return name


def _check_array(array: np.ndarray, tensor: Tensor, item: tuple[int, ...], *, origin: str) -> None:
    expected = f"(N, {', '.join(map(str, item))})" if item else "(N,)"
    if array.ndim == 0 or array.shape[1:] != item:
        raise DataError(f"{origin}: expected shape {expected}, found {array.shape}")
    if str(array.dtype) != tensor.dtype:
        raise DataError(f"{origin}: expected dtype {tensor.dtype}, found {array.dtype}; convert it with astype")
    if array.size == 0:
        raise DataError(f"{origin}: expected at least one item, found none")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
        raise DataError(f"{origin}: expected finite numbers, found NaN or infinity in item {bad}")


def _first(keys: tuple[str, ...] | list[str], arrays: Mapping[str, np.ndarray]) -> str | None:
    return next((key for key in keys if key in arrays), None)


def _listed(names: Mapping[str, object] | list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
