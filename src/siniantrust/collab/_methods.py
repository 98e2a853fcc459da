"""The service's methods: path, request and answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from siniantrust.collab import collab_pb2 as pb

SERVICE = "siniantrust.Collab"


@dataclass(frozen=True, slots=True)
class Method:
    """One unary method."""

    name: str
    request: Any
    answer: Any

    @property
    def path(self) -> str:
        """The path under which it is called."""
        return f"/{SERVICE}/{self.name}"


HELLO = Method("Hello", pb.HelloRequest, pb.HelloAnswer)
JOIN = Method("Join", pb.JoinRequest, pb.JoinAnswer)
UPLOAD = Method("Upload", pb.UploadRequest, pb.UploadAnswer)
STEP = Method("Step", pb.StepRequest, pb.StepAnswer)
FETCH = Method("Fetch", pb.FetchRequest, pb.FetchAnswer)
