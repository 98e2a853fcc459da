"""A value without its numbers: what a device returns that runs shapes only."""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np

from siniantrust.errors import DeviceError


class Unreadable:
    """An output of a device that runs shapes only: it has a dtype and a shape, and reading its values is an error."""

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], *, where: str) -> None:
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self._name = name
        self._where = where

    @property
    def nbytes(self) -> int:
        """Bytes that the value would take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise DeviceError(
            f"{self._where}: output {self._name!r} was computed on shapes alone; its values cannot be read"
        )

    __array__ = __array_ufunc__ = __array_function__ = _refuse
    __getitem__ = __iter__ = __len__ = __bool__ = __int__ = __float__ = __index__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
