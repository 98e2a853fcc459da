"""What holds for all of these tests."""

from __future__ import annotations

# gRPC reads once, when it first opens a channel, that nothing older than TLS 1.3 is spoken: before any test of another
# room opens one, as in a process of its own.
from siniantrust.collab._tls import load_grpc

load_grpc()
