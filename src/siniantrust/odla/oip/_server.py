"""The embedded server: a part or several, over gRPC and REST at once, until it is stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from siniantrust._extras import require
from siniantrust.errors import DeviceError
from siniantrust.odla._device import DeviceSpec
from siniantrust.odla.oip._guard import Tls, token_from, warnings_for
from siniantrust.odla.oip._ports import listen, port_error

MAX_MESSAGE_BYTES = 256 * 2**20
_STOP_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running server is reached. ``models`` has the version of each: the SHA-256 of the part's ONNX file."""

    http_url: str
    grpc_url: str
    models: Mapping[str, str]
    warnings: tuple[str, ...]


class Server:
    """Serves a part, or all untrusted ones of a bundle, by the Open Inference Protocol; a context manager.

    Each part is a model of its own name. Beside them are two small ones, ``siniantrust-link`` and
    ``siniantrust-compute``, by which a planner measures the way to the server and its speed.

    Args:
        path: A part (a folder with ``model.onnx`` and ``part.json``, or an ``.onnx`` file), or a bundle's folder.
            A bundle's signature is not checked here, but by whoever sends something.
        host: Address to listen on.
        http_port: Port for REST; 0 picks a free one.
        grpc_port: Port for gRPC; 0 picks a free one.
        device: What runs the parts; by default ONNX Runtime on every core.
        tls_cert: PEM file of the certificate chain; with ``tls_key`` both protocols are served over TLS only.
        tls_key: PEM file of its private key.
        token_env: Environment variable with the bearer token that callers must present.
        max_message_bytes: Requests beyond this are refused.
    """

    def __init__(
        self,
        path: Path,
        *,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        device: DeviceSpec | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        token_env: str | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        if (tls_cert is None) != (tls_key is None):
            raise DeviceError("tls_cert and tls_key go together; only one of them is given")
        self._path = path
        self._host = host
        self._http_port = http_port
        self._grpc_port = grpc_port
        # Threads that wait in a busy loop would take the cores from those that move tensors: a 3 MB request took 1.3 to
        # 2 times as long on two cores.
        self._device = device or DeviceSpec(name="cpu", options={"spinning": False})
        self._tls = Tls(tls_cert, tls_key) if tls_cert and tls_key else None
        self._token = token_from(token_env) if token_env else None
        self._max_message_bytes = max_message_bytes
        self._stops: list[Callable[[], object]] = []

    def start(self) -> Endpoints:
        """Load what is to be served and begin to serve it.

        Raises:
            BundleError: if a part is not what it says it is, or a bundle has none to serve.
            DeviceError: if the device does not run one, a port is in use, or a TLS file does not do.
            MissingExtraError: if the server's libraries are not installed.
        """
        for module in ("grpc", "google.protobuf", "starlette", "uvicorn"):
            require(module, extra="serve")
        from siniantrust.odla.oip._servable import load_servables

        if self._stops:
            raise DeviceError("this server runs already")
        try:
            if self._tls is not None:
                self._tls.check()
            servables = load_servables(self._path, self._device)
            self._stops.append(servables.close)
            http_port = self._start_rest(servables)
            grpc_port = self._start_grpc(servables)
        except BaseException:
            self.stop()
            raise
        secure = "s" if self._tls is not None else ""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return Endpoints(
            http_url=f"http{secure}://{host}:{http_port}",
            grpc_url=f"grpc{secure}://{host}:{grpc_port}",
            models={each.name: each.version for each in servables.parts},
            warnings=warnings_for(self._host, tls=self._tls is not None, token=self._token is not None),
        )

    def stop(self) -> None:
        """Stop serving, letting running requests finish for two seconds; calling it again does nothing."""
        while self._stops:
            self._stops.pop()()

    def __enter__(self) -> Endpoints:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _start_rest(self, servables: Any) -> int:
        import uvicorn

        from siniantrust.odla.oip._rest_app import rest_app

        app = rest_app(servables, token=self._token, max_message_bytes=self._max_message_bytes)
        listener = listen(self._host, self._http_port)
        self._stops.append(listener.close)
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(_STOP_GRACE_S),
            ssl_certfile=None if self._tls is None else str(self._tls.certificate),
            ssl_keyfile=None if self._tls is None else str(self._tls.key),
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            raise DeviceError(f"TLS certificate and key do not do: {error}") from error
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="siniantrust-rest", daemon=True
        )
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(2 * _STOP_GRACE_S)

        self._stops.append(stop)
        return int(listener.getsockname()[1])

    def _start_grpc(self, servables: Any) -> int:
        import grpc

        from siniantrust.odla.oip._grpc_service import service_handler

        options = [
            # Two servers on one port would each get some of the calls; the second one has to fail.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self._max_message_bytes),
            ("grpc.max_send_message_length", -1),
        ]
        if self._grpc_port != 0:
            # Found in use by gRPC itself, a port makes it write to standard error.
            listen(self._host, self._grpc_port).close()
        server = grpc.server(ThreadPoolExecutor(max_workers=os.cpu_count() or 1), options=options)
        server.add_generic_rpc_handlers((service_handler(servables, self._token),))
        address = f"[{self._host}]:{self._grpc_port}" if ":" in self._host else f"{self._host}:{self._grpc_port}"
        try:
            if self._tls is None:
                port = server.add_insecure_port(address)
            else:
                pair = (self._tls.key.read_bytes(), self._tls.certificate.read_bytes())
                port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        except RuntimeError:
            raise port_error(self._host, self._grpc_port) from None
        if port == 0:
            raise port_error(self._host, self._grpc_port)
        server.start()
        self._stops.append(lambda: server.stop(_STOP_GRACE_S).wait())
        return int(port)


def serve(
    path: Path,
    *,
    host: str = "127.0.0.1",
    http_port: int = 8000,
    grpc_port: int = 8001,
    device: DeviceSpec | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    token_env: str | None = None,
    ready: Callable[[Endpoints], object] | None = None,
) -> None:
    """Serve a part or a bundle's until SIGINT or SIGTERM. Call it from the main thread.

    Args:
        path: As for ``Server``, like all that is not named here.
        host: Address to listen on.
        http_port: Port for REST.
        grpc_port: Port for gRPC.
        device: What runs the parts.
        tls_cert: PEM file of the certificate chain.
        tls_key: PEM file of its private key.
        token_env: Environment variable with the bearer token that callers must present.
        ready: Called once the server answers, with where it does and what its operator should be warned of.

    Raises:
        BundleError: if a part is not what it says it is, or a bundle has none to serve.
        DeviceError: if the device does not run one, or a port is in use.
        MissingExtraError: if the server's libraries are not installed.
    """
    server = Server(
        path,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        device=device,
        tls_cert=tls_cert,
        tls_key=tls_key,
        token_env=token_env,
    )
    stopped = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
        stopped.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with server as endpoints:
            if ready is not None:
                ready(endpoints)
            stopped.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
