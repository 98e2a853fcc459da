"""What a deployment takes and gives: checking a request, cutting many rows into requests, and joining the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from siniantrust.errors import DataError
from siniantrust.graph import Tensor

Arrays = Mapping[str, np.ndarray]
Results = dict[str, np.ndarray]


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of the uncut model. ``free_batch`` says whether it leaves the batch size free."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    free_batch: bool

    @property
    def least_rows(self) -> int:
        """Rows of the smallest request: one, or the batch size that the model fixes."""
        return 1 if self.free_batch else next((tensor.shape[0] for tensor in self.inputs if tensor.shape), 1)

    def check(self, request: Arrays) -> Results:
        """Return the request's arrays if they fit the model's inputs.

        Raises:
            DataError: naming the input that is missing, unknown, of another dtype or shape, or not finite.
        """
        if request.keys() != self._names:
            raise DataError(f"inputs: expected {sorted(self._names)}, found {sorted(map(str, request))}")
        for tensor in self.inputs:
            self._check_input(tensor, request[tensor.name])
        if len(self.inputs) > 1:
            self._check_batches(request)
        return {tensor.name: request[tensor.name] for tensor in self.inputs}

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(tensor.name for tensor in self.inputs)

    def _check_batches(self, request: Arrays) -> None:
        batches = {tensor.name: len(request[tensor.name]) for tensor in self.inputs if tensor.batch_axis == 0}
        if len(set(batches.values())) > 1:
            raise DataError(f"inputs: expected one batch size, found {batches}")

    def _check_input(self, tensor: Tensor, array: object) -> None:
        if not isinstance(array, np.ndarray):
            raise DataError(f"input {tensor.name!r}: expected a numpy array, found {type(array).__name__}")
        if array.dtype != tensor.dtype or not tensor.fits(array.shape):
            shape: list[int | str] = list(tensor.shape)
            if tensor.batch_axis is not None:
                shape[tensor.batch_axis] = "batch"
            wanted = f"{tensor.dtype} of shape [{', '.join(map(str, shape))}]"
            raise DataError(
                f"input {tensor.name!r}: expected {wanted}, found {array.dtype} of shape {list(array.shape)}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                f"input {tensor.name!r}: it holds NaN or infinity; the model was audited on finite data only"
            )

    def cut(self, inputs: Arrays, *, batch_items: int) -> list[Results]:
        """Cut arrays with one row per item into requests; an input without rows goes whole into each.

        Args:
            inputs: arrays by name.
            batch_items: rows per request where the model leaves the batch size free.

        Raises:
            DataError: if the inputs differ in length or do not divide into the model's batches, or if the answers
                could not be joined because an output has no row per item.
        """
        if batch_items < 1:
            raise DataError(f"batch: expected at least one item per request, found {batch_items}")
        count = self.count_rows(inputs)
        size = batch_items if self.free_batch else self.least_rows
        if not self.free_batch and count % size:
            raise DataError(f"inputs: the model takes {size} rows at a time, found {count}; bring a multiple")
        whole = [tensor.name for tensor in self.outputs if not self._has_rows(tensor)]
        if whole and count > size:
            raise DataError(
                f"output {whole[0]!r}: it has no row per item, so answers cannot be joined; run them singly"
            )
        rowed = {tensor.name for tensor in self.inputs if self._has_rows(tensor)}
        return [
            {name: array[start : start + size] if name in rowed else array for name, array in inputs.items()}
            for start in range(0, count, size)
        ]

    def count_rows(self, inputs: Arrays) -> int:
        """Return how many rows the inputs have.

        Raises:
            DataError: if an input is missing, or they differ in length or have none.
        """
        if set(inputs) != {tensor.name for tensor in self.inputs}:
            expected = sorted(tensor.name for tensor in self.inputs)
            raise DataError(f"inputs: expected {expected}, found {sorted(map(str, inputs))}")
        rowed = [tensor.name for tensor in self.inputs if self._has_rows(tensor)]
        lengths = {name: len(inputs[name]) if np.ndim(inputs[name]) else 0 for name in rowed}
        count = max(lengths.values(), default=0)
        if count == 0 or set(lengths.values()) != {count}:
            raise DataError(f"inputs: expected as many rows in each, and at least one, found {lengths}")
        return count

    def answer(self, values: Results) -> Results:
        """Return the model's outputs out of all values that a request's parts made."""
        return {tensor.name: values[tensor.name] for tensor in self.outputs}

    def join(self, answers: Sequence[Results]) -> Results:
        """Join the answers to what ``cut`` made, in the same order."""
        if len(answers) == 1:
            return dict(answers[0])
        return {tensor.name: np.concatenate([answer[tensor.name] for answer in answers]) for tensor in self.outputs}

    def _has_rows(self, tensor: Tensor) -> bool:
        return tensor.batch_axis == 0 if self.free_batch else tensor.shape[:1] == (self.least_rows,)
