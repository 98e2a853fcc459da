"""The REST half of the server: the protocol's paths over what is served, with the binary tensor data extension."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from siniantrust.errors import DataError, ProtocolError, SinianError
from siniantrust.odla.oip._guard import is_authorised
from siniantrust.odla.oip._rest_codec import HEADER_LENGTH, decode_request, encode_answer, encode_metadata
from siniantrust.odla.oip._servable import SERVER, NotFoundError, Servable, Servables

_log = logging.getLogger(__name__)
_Endpoint = Callable[[Request], Awaitable[Response]]


def rest_app(servables: Servables, *, token: str | None, max_message_bytes: int) -> Starlette:
    """Return the web application that answers the protocol for ``servables``."""

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": True})

    async def server_metadata(_: Request) -> Response:
        return JSONResponse({"name": SERVER.name, "version": SERVER.version, "extensions": list(SERVER.extensions)})

    async def model_ready(request: Request) -> Response:
        return JSONResponse({"name": _find(request, servables).name, "ready": True})

    async def model_metadata(request: Request) -> Response:
        return JSONResponse(encode_metadata(_find(request, servables).metadata()))

    async def infer(request: Request) -> Response:
        servable = _find(request, servables)
        body = await _body(request, max_message_bytes)
        content, length = await run_in_threadpool(_infer, servable, body, request.headers.get(HEADER_LENGTH))
        if length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(length)})

    routes = [Route("/v2/health/live", live), Route("/v2/health/ready", ready)]
    routes.append(Route("/v2", _guarded(server_metadata, token)))
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes.append(Route(prefix, _guarded(model_metadata, token)))
        routes.append(Route(f"{prefix}/ready", _guarded(model_ready, token)))
        routes.append(Route(f"{prefix}/infer", _guarded(infer, token), methods=["POST"]))
    return Starlette(routes=routes, exception_handlers={HTTPException: _refused})


def _infer(servable: Servable, body: bytes, header_length: str | None) -> tuple[bytes, int | None]:
    request = decode_request(body, header_length)
    answer = servable.infer(request)
    binary = {name: request.outputs.get(name, request.binary) for name in answer.outputs}
    return encode_answer(answer, id_=request.id, binary=binary)


def _find(request: Request, servables: Servables) -> Servable:
    return servables.find(request.path_params["model"], request.path_params.get("version", ""))


async def _body(request: Request, limit: int) -> bytes:
    """Read a request's body, giving up as soon as it exceeds ``limit`` bytes."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise HTTPException(413, f"a message of {announced[:20]} bytes exceeds the limit of {limit}")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise HTTPException(413, f"the message exceeds the limit of {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _guarded(endpoint: _Endpoint, token: str | None) -> _Endpoint:
    """Wrap ``endpoint``: check the token, and turn errors into status codes with one line of reason."""

    async def handle(request: Request) -> Response:
        if not is_authorised(request.headers.get("authorization"), token):
            return _problem(401, "a bearer token is required")
        try:
            return await endpoint(request)
        except NotFoundError as error:
            return _problem(404, str(error))
        except (DataError, ProtocolError) as error:
            return _problem(400, str(error))
        except ClientDisconnect:
            return _problem(400, "the client went away")
        except SinianError as error:
            _log.warning("%s", error)
            return _problem(500, str(error))

    return handle


async def _refused(_: Request, error: Any) -> Response:
    return _problem(error.status_code, error.detail)


def _problem(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)
