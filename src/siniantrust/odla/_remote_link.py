"""The way to a server and back, measured by what the server offers."""

from __future__ import annotations

from functools import partial

import numpy as np

from siniantrust.errors import DeviceError, DeviceLostError
from siniantrust.odla._calibration import LINK
from siniantrust.odla._call_cost import REPEATS, CallCost, fit_calls, median_seconds
from siniantrust.odla.oip._client import Client

# A server may refuse messages of more than 4 MiB, gRPC's default.
_SIZES = (1 << 12, 1 << 18, 1 << 20)
ASSUMED_SECONDS_PER_BYTE = 8e-9
"""A link of 1 Gbit/s, where the cost of bytes cannot be measured."""


def measure_by_refusals(client: Client, *, url: str, is_grpc: bool) -> CallCost:
    """Measure a server that has no part of ours: requests without data, and such as it refuses once they are there.

    Over gRPC a request arrives whole before the server sees which model it is for. The way back is taken to be as
    fast. A web server may refuse a request by its head, so that there only the exchange without data is measured.

    Args:
        client: speaks to the server for a model that it does not have.
        url: the server, for the basis.
        is_grpc: whether the client speaks gRPC.

    Raises:
        DeviceLostError: if the server does not answer.
    """
    (base_s,) = median_seconds([client.server_ready])
    if not is_grpc:
        return CallCost(
            base_s,
            ASSUMED_SECONDS_PER_BYTE,
            ASSUMED_SECONDS_PER_BYTE,
            f"exchanges without data with {url} measured (median of {REPEATS}); bytes assumed as over 1 Gbit/s",
        )
    arrays = [np.zeros((1, size // 4), np.float32) for size in _SIZES]
    seconds = median_seconds([partial(_refused, client, array) for array in arrays])
    found = fit_calls([(array.nbytes, 0) for array in arrays], seconds, basis=f"refused requests to {url} measured")
    in_s = found.seconds_per_byte_in
    return CallCost(found.base_s, in_s, in_s, f"{found.basis}; the way back taken to be as fast")


def _refused(client: Client, array: np.ndarray) -> None:
    try:
        client.infer({"x": array}, [LINK])
    except DeviceLostError:
        raise
    except DeviceError:
        return
