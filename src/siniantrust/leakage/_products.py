"""Matrix products and solutions by torch, whose threads an audit shares out.

NumPy's own BLAS keeps a pool of threads that cuts attacked at the same time would fight over.
"""

from __future__ import annotations

import numpy as np


def products(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the inner products of every row of ``rows`` with every row of ``columns``."""
    import torch

    return np.asarray(torch.as_tensor(rows) @ torch.as_tensor(columns).T)


def solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return X with ``matrix`` @ X = ``right``."""
    import torch

    return np.asarray(torch.linalg.solve(torch.as_tensor(matrix), torch.as_tensor(right)))
