"""The ``ray`` backend's cluster: joining it, and calling its actors."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any

from siniantrust._extras import require
from siniantrust.errors import DeviceError, DeviceLostError, SinianError
from siniantrust.odla._text import one_line

_REACHABLE_S = 5.0
_joining = threading.Lock()
# By which names this process joined clusters, and the addresses that these give themselves.
_names: dict[str, str] = {}


def join(address: str, *, device: str) -> None:
    """Connect this process to a cluster that runs, unless it is connected.

    None is ever started, nor looked for: a cluster may run code in this process, so that it has to be named.

    Args:
        address: the head's ``host:port``; if empty, the cluster that this process is in, else that of ``RAY_ADDRESS``.
        device: the name for messages.

    Raises:
        DeviceError: if there is no such cluster, or the process is connected to another one.
    """
    ray = require("ray", extra="ray")
    with _joining:
        if ray.is_initialized():
            joined = ray.get_runtime_context().gcs_address
            if address and joined not in {address, _names.get(address)}:
                raise DeviceError(
                    f"device {device!r}: this process is connected to the Ray cluster at {joined}, and cannot use the "
                    f"one at {address} too; call ray.shutdown() before"
                )
            return
        address = address or os.environ.get("RAY_ADDRESS", "")
        host, _, port = address.rpartition(":")
        if not host or "://" in address or not port.isdecimal():
            raise DeviceError(
                f"device {device!r}: option 'address' (or RAY_ADDRESS) must be host:port of a Ray cluster's head, "
                f"found {address!r}; this machine has to be in the cluster (ray start --address=...)"
            )
        try:
            # Ray itself would try for a minute.
            socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHABLE_S).close()
            # What workers print is a stranger's text, and does not belong on this process's terminal.
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except Exception as error:  # noqa: BLE001 - Ray raises whatever its layers do: ConnectionError, ValueError, ...
            raise DeviceError(
                f"device {device!r}: no Ray cluster at {address}: {one_line(error)}; start one (ray start --head) or "
                "name another address"
            ) from None
        _names[address] = ray.get_runtime_context().gcs_address


def call(actor: Any, method: str, *arguments: Any, timeout_s: float) -> Any:
    """Call a method of an actor and return what it answers.

    Raises:
        DeviceLostError: if the actor, its worker process or its node died, it did not answer in time, or this process
            left the cluster.
        SinianError: what the actor raised: one of ours as it is, anything else as DeviceError.
    """
    check_joined()
    ray = require("ray", extra="ray")
    try:
        return ray.get(getattr(actor, method).remote(*arguments), timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        raise DeviceLostError(f"its Ray actor did not answer within {timeout_s:g} s") from None
    except ray.exceptions.RayTaskError as error:
        raise _raised(error.cause, ray.exceptions.RayError) from None
    except ray.exceptions.RayError as error:
        raise _lost(error) from error


def check_joined() -> None:
    """Raise DeviceLostError if this process left its cluster; Ray would start another one by itself."""
    if not require("ray", extra="ray").is_initialized():
        raise DeviceLostError("this process left the Ray cluster")


def tell(actor: Any, method: str, *arguments: Any) -> None:
    """Call a method of an actor, if it is there, without waiting for the end."""
    ray = require("ray", extra="ray")
    if ray.is_initialized():
        with suppress(ray.exceptions.RayError):
            getattr(actor, method).remote(*arguments)


def end(actor: Any) -> None:
    """Kill an actor, if it is there."""
    ray = require("ray", extra="ray")
    if ray.is_initialized():
        with suppress(ray.exceptions.RayError):  # a handle from before this process joined anew
            ray.kill(actor)


def _raised(cause: BaseException, ray_error: type[Exception]) -> SinianError:
    if isinstance(cause, SinianError):
        return type(cause)(str(cause))
    if isinstance(cause, ray_error):  # a part of it was lost on the way to the actor
        return _lost(cause)
    return DeviceError(f"its Ray actor raised {type(cause).__name__}: {one_line(cause)}")


def _lost(error: BaseException) -> DeviceLostError:
    return DeviceLostError(f"its Ray actor is lost: {type(error).__name__}: {one_line(error)}")
