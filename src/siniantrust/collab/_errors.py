"""What goes wrong between edge and cloud."""

from __future__ import annotations

from siniantrust.errors import DeviceError, SinianError


class CollabError(SinianError):
    """Collaborative training cannot go on: a configuration, a checkpoint, a peer or a message does not do."""


class RefusedError(CollabError):
    """The other side refused what was sent, and said why; sending it again would be refused again."""


class HijackError(CollabError):
    """The gradients that the cloud sends do not behave as those of the edge's own task would."""


class CloudLostError(DeviceError):
    """The cloud does not answer; the next call may reach it again."""


class JoinAgainError(CollabError):
    """The cloud does not know this edge, or the others have gone back to a checkpoint: join again."""
