"""A small HTTP client for one server: kept connections, a deadline for the whole call, no proxy, no redirect."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Mapping
from email.message import Message

from siniantrust.errors import DeviceError, DeviceLostError, ProtocolError
from siniantrust.odla._text import one_line
from siniantrust.odla.oip._client import MAX_ANSWER_BYTES, Target

_CHUNK_BYTES = 1 << 20


class HttpClient:
    """Calls one server over HTTP/1.1. Several threads may call at once, each over a connection of its own.

    Private tensors go to the named host and nowhere else: what the environment says of proxies is not followed, and
    neither is a redirect.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._tls = (
            ssl.create_default_context(cafile=None if target.ca_file is None else str(target.ca_file))
            if target.is_encrypted
            else None
        )

    def call(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Message, bytes]:
        """Send one request; return the status, the headers and the body of the answer.

        Raises:
            DeviceLostError: if the connection is refused, drops or times out. Nothing is sent again: the next call
                connects anew.
            ProtocolError: if the answer is not HTTP, compressed, or too large.
            DeviceError: if the server's certificate does not verify.
        """
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if self._target.token is not None:
            sent["Authorization"] = f"Bearer {self._target.token}"
        with self._lock:
            connection = self._idle.pop() if self._idle else self._connection()
        try:
            answer = self._exchange(connection, method, path, body, sent)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _connection(self) -> http.client.HTTPConnection:
        target = self._target
        if self._tls is not None:
            return http.client.HTTPSConnection(target.host, target.port, timeout=target.timeout_s, context=self._tls)
        return http.client.HTTPConnection(target.host, target.port, timeout=target.timeout_s)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> tuple[int, Message, bytes]:
        url = self._target.url
        deadline = time.monotonic() + self._target.timeout_s
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            response = connection.getresponse()
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ProtocolError(f"{url} sent a compressed answer that nobody asked for")
            return response.status, response.headers, self._body(response, deadline)
        except TimeoutError:
            raise DeviceLostError(f"{url} did not answer within {self._target.timeout_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise DeviceError(f"{url}: its certificate does not verify: {one_line(error.verify_message)}") from None
        except (http.client.RemoteDisconnected, http.client.IncompleteRead) as error:
            raise DeviceLostError(f"{url} hung up: {one_line(error)}") from None
        except OSError as error:
            raise DeviceLostError(f"{url} does not answer: {one_line(error)}") from None
        except (http.client.HTTPException, ValueError) as error:
            raise ProtocolError(f"{url} does not speak HTTP: {type(error).__name__}: {one_line(error)}") from None

    def _body(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        url = self._target.url
        if response.length is not None and response.length > MAX_ANSWER_BYTES:
            raise ProtocolError(f"{url} sent an answer of {response.length} bytes, more than {MAX_ANSWER_BYTES}")
        announced = response.length
        chunks, size = [], 0
        # One read of the socket at a time: the library's own limit is per read, and a server that drips would hold the
        # caller for ever.
        while chunk := response.read1(_CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise ProtocolError(f"{url} sent an answer of more than {MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise DeviceLostError(f"{url} did not finish within {self._target.timeout_s:g} s")
        if announced is not None and size < announced:
            raise DeviceLostError(f"{url} hung up after {size} of {announced} bytes")
        response.close()  # read to the end, which frees the connection for the next request
        return b"".join(chunks)
