"""The protocol's client over gRPC."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from siniantrust._extras import require
from siniantrust.errors import DeviceError, DeviceLostError, ProtocolError
from siniantrust.odla._device import Arrays
from siniantrust.odla._text import one_line
from siniantrust.odla.oip._client import MAX_ANSWER_BYTES, Target
from siniantrust.odla.oip._messages import InferAnswer, InferRequest, ModelMetadata


class GrpcClient:
    """Calls one model at a server over gRPC."""

    def __init__(self, target: Target) -> None:
        require("grpc", extra="remote")
        require("google.protobuf", extra="remote")
        from siniantrust.odla.oip import _grpc_codec, _methods

        self._codec = _grpc_codec
        self._methods = _methods
        self._target = target
        self._lock = threading.Lock()
        self._channel: Any = None
        self._metadata = [] if target.token is None else [("authorization", f"Bearer {target.token}")]

    def server_ready(self) -> bool:
        """Ask whether the server takes requests."""
        return self._is_ready(self._methods.SERVER_READY, self._methods.SERVER_READY.request())

    def model_ready(self) -> bool:
        """Ask whether the model does."""
        method = self._methods.MODEL_READY
        return self._is_ready(method, method.request(name=self._target.model, version=self._target.version))

    def model_metadata(self) -> ModelMetadata:
        """Ask what the model takes and gives."""
        method = self._methods.MODEL_METADATA
        message = method.request(name=self._target.model, version=self._target.version)
        return self._codec.decode_metadata(self._call(method, message.SerializeToString()))

    def infer(self, inputs: Arrays, outputs: Sequence[str]) -> InferAnswer:
        """Run the model, tensors raw."""
        request = InferRequest(inputs=inputs, outputs=dict.fromkeys(outputs, True))
        data = self._codec.encode_request(self._target.model, self._target.version, request)
        return self._codec.decode_answer(self._call(self._methods.MODEL_INFER, data))

    def close(self) -> None:
        """Close the channel."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None

    def _is_ready(self, method: Any, message: Any) -> bool:
        return bool(self._codec.parsed(method.response, self._call(method, message.SerializeToString())).ready)

    def _call(self, method: Any, data: bytes) -> bytes:
        import grpc

        call = self._open().unary_unary(method.path, _registered_method=False)
        try:
            answer: bytes = call(data, timeout=self._target.timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._translated(error) from None
        except ValueError as error:  # the channel was closed meanwhile, by another thread that lost the connection
            raise DeviceLostError(f"{self._target.url}: {one_line(error)}") from None
        return answer

    def _open(self) -> Any:
        import grpc

        with self._lock:
            if self._channel is None:
                self._channel = self._new_channel(grpc)
            return self._channel

    def _new_channel(self, grpc: Any) -> Any:
        target = self._target
        options = [
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),
            # Private tensors go to the named host and nowhere else, whatever the environment says of proxies.
            ("grpc.enable_http_proxy", 0),
            # Each channel has its own connection, so that a new one does not inherit the old one's waiting time.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        address = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
        if not target.is_encrypted:
            return grpc.insecure_channel(address, options)
        roots = None if target.ca_file is None else target.ca_file.read_bytes()
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificates=roots), options)

    def _translated(self, error: Any) -> DeviceError:
        import grpc

        code, details = error.code(), one_line(error.details() or "")
        url = self._target.url
        if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}:
            # A fresh channel for the next call: this one would wait before it tries again.
            self.close()
            return DeviceLostError(f"{url} does not answer: {code.name}: {details}")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "CLIENT" in details:
            return ProtocolError(f"{url} sent an answer of more than {MAX_ANSWER_BYTES} bytes")
        return DeviceError(f"{url} refused model {self._target.model!r}: {code.name}: {details}")
