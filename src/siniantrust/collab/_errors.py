"""What goes wrong between edge and cloud."""

from __future__ import annotations

from collections.abc import Collection

from siniantrust.errors import DeviceError, SinianError


class CollabError(SinianError):
    """Collaborative training cannot go on: a configuration, a checkpoint, a peer or a message does not do."""


class RefusedError(CollabError):
    """The other side refused what was sent, and said why; sending it again would be refused again."""


class DivergedError(CollabError):
    """What Part 2 makes of some edges' items is not finite.

    Attributes:
        edges: whose.
    """

    def __init__(self, edges: Collection[str]) -> None:
        super().__init__(
            "what Part 2 makes of the items is not finite; their values or the learning_rate are too large"
        )
        self.edges = edges


class WaitingError(CollabError):
    """Other edges are awaited, for longer than a call lasts: call again."""


class HijackError(CollabError):
    """The gradients that the cloud sends do not behave as those of the edge's own task would."""


class CloudLostError(DeviceError):
    """The cloud does not answer; the next call may reach it again."""


class JoinAgainError(CollabError):
    """The cloud does not know this edge, or the others have gone back to a checkpoint: join again."""
