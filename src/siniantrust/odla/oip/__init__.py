"""The Open Inference Protocol, version 2: our server of it, and the two clients that the ``remote`` backend drives.

Source: the public specification, https://github.com/kserve/open-inference-protocol, and KServe's binary tensor data
extension for REST.
"""

from siniantrust.odla.oip._server import Endpoints, Server, serve

__all__ = ["Endpoints", "Server", "serve"]
