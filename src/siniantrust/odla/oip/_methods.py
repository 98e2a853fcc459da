"""The gRPC service's methods: published path, request and response message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from siniantrust.odla.oip import open_inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"


@dataclass(frozen=True, slots=True)
class Method:
    """One unary method of the service."""

    name: str
    request: Any
    response: Any

    @property
    def path(self) -> str:
        """The path under which the specification publishes the method."""
        return f"/{SERVICE}/{self.name}"


SERVER_LIVE = Method("ServerLive", pb.ServerLiveRequest, pb.ServerLiveResponse)
SERVER_READY = Method("ServerReady", pb.ServerReadyRequest, pb.ServerReadyResponse)
MODEL_READY = Method("ModelReady", pb.ModelReadyRequest, pb.ModelReadyResponse)
SERVER_METADATA = Method("ServerMetadata", pb.ServerMetadataRequest, pb.ServerMetadataResponse)
MODEL_METADATA = Method("ModelMetadata", pb.ModelMetadataRequest, pb.ModelMetadataResponse)
MODEL_INFER = Method("ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse)
