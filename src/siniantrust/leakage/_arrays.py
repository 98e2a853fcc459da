"""NumPy files from anywhere: read without running code from them, and without believing the sizes that they claim."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from siniantrust.errors import DataError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_SUFFIX = ".npy"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a ``.npz`` file's arrays by name, or a ``.npy`` file's array under the empty name.

    Raises:
        DataError: if it cannot be read, holds objects rather than numbers, or is not as long as its header says.
    """
    if path.suffix not in (_SUFFIX, ".npz"):
        raise DataError(f"data {path}: expected a .npy or .npz file, found '{path.suffix or path.name}'")
    try:
        if path.suffix == _SUFFIX:
            with path.open("rb") as stream:
                return {"": _read(stream, path.stat().st_size)}
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for member in archive.infolist():
                with archive.open(member) as packed:
                    arrays[member.filename.removesuffix(_SUFFIX)] = _read(packed, member.file_size)
            return arrays
    except OSError as error:
        raise DataError(f"data {path}: cannot be read ({error.strerror or error})") from None
    except (
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        RuntimeError,
        MemoryError,
        SyntaxError,  # of a dtype such as ",f4", which NumPy takes for Python
        tokenize.TokenError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"data {path}: not a readable NumPy file ({reason})") from None


def _read(stream: IO[bytes], size_bytes: int) -> np.ndarray:
    """Read one array from a stream of ``size_bytes``; memory is only taken once the header agrees with that."""
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"format version {version} is not known")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        # Objects are stored as pickles, which run code when they are read.
        raise ValueError("it holds objects; expected plain numbers")
    found = size_bytes - stream.tell()
    if math.prod(shape) * dtype.itemsize != found or min(shape, default=0) < 0:
        raise ValueError(f"its header declares {dtype} {shape}, but {found} bytes follow")
    stream.seek(0)
    array: np.ndarray = npy.read_array(stream, allow_pickle=False)
    return array
