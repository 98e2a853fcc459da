"""The protocol's client over REST."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from siniantrust.errors import DeviceError, DeviceLostError, ProtocolError
from siniantrust.odla._device import Arrays
from siniantrust.odla._text import one_line
from siniantrust.odla.oip._client import Target
from siniantrust.odla.oip._http import HttpClient
from siniantrust.odla.oip._messages import InferAnswer, InferRequest, ModelMetadata
from siniantrust.odla.oip._rest_codec import (
    BINARY_EXTENSION,
    HEADER_LENGTH,
    decode_answer,
    decode_metadata,
    decode_server_metadata,
    encode_request,
    parse_object,
)

_OK = 200
_BUSY = frozenset({429, 502, 503, 504})


class RestClient:
    """Calls one model at a server over REST, with binary tensors where the server offers them, else with JSON."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._http = HttpClient(target)
        self._binary: bool | None = None
        version = f"/versions/{quote(target.version, safe='')}" if target.version else ""
        self._model_path = f"/v2/models/{quote(target.model, safe='')}{version}"

    def server_ready(self) -> bool:
        """Ask whether the server takes requests."""
        return self._is_ready("/v2/health/ready")

    def model_ready(self) -> bool:
        """Ask whether the model does."""
        return self._is_ready(f"{self._model_path}/ready")

    def model_metadata(self) -> ModelMetadata:
        """Ask what the model takes and gives, and whether the server takes binary tensors."""
        self._binary = BINARY_EXTENSION in decode_server_metadata(self._get("/v2")).extensions
        return decode_metadata(self._get(self._model_path))

    def infer(self, inputs: Arrays, outputs: Sequence[str]) -> InferAnswer:
        """Run the model."""
        if self._binary is None:
            self.model_metadata()
        binary = bool(self._binary)
        body, length = encode_request(
            InferRequest(inputs=inputs, outputs=dict.fromkeys(outputs, binary), binary=binary)
        )
        headers = {"Content-Type": "application/json"}
        if length is not None:
            headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(length)}
        status, received, answer = self._http.call("POST", f"{self._model_path}/infer", body=body, headers=headers)
        self._check(status, answer)
        return decode_answer(answer, received.get(HEADER_LENGTH))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _is_ready(self, path: str) -> bool:
        status, _, answer = self._http.call("GET", path)
        if status in {400, 503}:
            return False
        self._check(status, answer)
        return True

    def _get(self, path: str) -> bytes:
        status, _, answer = self._http.call("GET", path)
        self._check(status, answer)
        return answer

    def _check(self, status: int, answer: bytes) -> None:
        if status == _OK:
            return
        url = self._target.url
        if status in _BUSY:
            raise DeviceLostError(f"{url} does not take requests: HTTP {status}")
        try:
            reason = one_line(parse_object(answer).get("error", ""))
        except ProtocolError:
            reason = one_line(answer[:200].decode("ascii", "replace"))
        raise DeviceError(f"{url} refused model {self._target.model!r}: HTTP {status}: {reason}")
