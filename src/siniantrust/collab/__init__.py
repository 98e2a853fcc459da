"""Training across edge and cloud: the edge keeps the data, the cloud trains on what leaves, over TLS 1.3 and gRPC.

*Masked upload*: the edge computes Part 1 and its mask once for each item, and the cloud trains Part 2 for as long as it
likes. *Split learning*: activations go forward and gradients back in every step; labels are at the cloud, or stay at
the edge, which then has the last part as well. Either way the result is one ordinary ONNX model.
"""

from typing import TYPE_CHECKING

from siniantrust.collab._config import CloudConfig, EdgeConfig, load_config
from siniantrust.collab._errors import CloudLostError, CollabError, HijackError, JoinAgainError, RefusedError
from siniantrust.collab._tls import write_identity

if TYPE_CHECKING:
    from siniantrust.collab._cloud import run_cloud
    from siniantrust.collab._edge import run_edge

__all__ = [
    "CloudConfig",
    "CloudLostError",
    "CollabError",
    "EdgeConfig",
    "HijackError",
    "JoinAgainError",
    "RefusedError",
    "load_config",
    "run_cloud",
    "run_edge",
    "write_identity",
]


def __getattr__(name: str) -> object:
    """Import what runs when it is first asked for: it brings torch and gRPC."""
    if name == "run_cloud":
        from siniantrust.collab._cloud import run_cloud

        return run_cloud
    if name == "run_edge":
        from siniantrust.collab._edge import run_edge

        return run_edge
    raise AttributeError(f"module 'siniantrust.collab' has no attribute {name!r}")
