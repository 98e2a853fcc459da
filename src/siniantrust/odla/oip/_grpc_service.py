"""The gRPC half of the server: six unary methods over what is served."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from siniantrust.errors import DataError, ProtocolError, SinianError
from siniantrust.odla.oip import _methods as methods
from siniantrust.odla.oip import open_inference_pb2 as pb
from siniantrust.odla.oip._grpc_codec import decode_request, encode_answer, encode_metadata, parsed, serialised
from siniantrust.odla.oip._guard import is_authorised
from siniantrust.odla.oip._servable import SERVER, NotFoundError, Servables

_log = logging.getLogger(__name__)


def service_handler(servables: Servables, token: str | None) -> Any:
    """Return the generic gRPC handler of the service.

    Messages are parsed here rather than by gRPC, so that a malformed one is the caller's INVALID_ARGUMENT.
    """
    import grpc

    def model_ready(message: Any) -> bytes:
        servables.find(message.name, message.version)
        return serialised(pb.ModelReadyResponse(ready=True))

    def model_metadata(message: Any) -> bytes:
        return encode_metadata(servables.find(message.name, message.version).metadata())

    def infer(message: Any) -> bytes:
        servable = servables.find(message.model_name, message.model_version)
        return encode_answer(servable.infer(decode_request(message)), id_=message.id)

    server = pb.ServerMetadataResponse(name=SERVER.name, version=SERVER.version, extensions=SERVER.extensions)
    answers: dict[methods.Method, Callable[[Any], bytes]] = {
        methods.SERVER_LIVE: lambda _: serialised(pb.ServerLiveResponse(live=True)),
        methods.SERVER_READY: lambda _: serialised(pb.ServerReadyResponse(ready=True)),
        methods.SERVER_METADATA: lambda _: serialised(server),
        methods.MODEL_READY: model_ready,
        methods.MODEL_METADATA: model_metadata,
        methods.MODEL_INFER: infer,
    }
    # Whether it lives is all that a stranger may ask.
    open_to_all = {methods.SERVER_LIVE, methods.SERVER_READY}
    return grpc.method_handlers_generic_handler(
        methods.SERVICE,
        {
            method.name: grpc.unary_unary_rpc_method_handler(
                _guarded(method, answer, None if method in open_to_all else token)
            )
            for method, answer in answers.items()
        },
    )


def _guarded(
    method: methods.Method, answer: Callable[[Any], bytes], token: str | None
) -> Callable[[bytes, Any], bytes]:
    """Wrap ``answer``: check the token, parse the message, and turn errors into status codes."""
    import grpc

    def handle(data: bytes, context: Any) -> bytes:
        header = dict(context.invocation_metadata()).get("authorization")
        try:
            if not is_authorised(header, token):
                code, reason = grpc.StatusCode.UNAUTHENTICATED, "a bearer token is required"
            else:
                return answer(parsed(method.request, data))
        except NotFoundError as error:
            code, reason = grpc.StatusCode.NOT_FOUND, str(error)
        except (DataError, ProtocolError) as error:
            code, reason = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except SinianError as error:
            _log.warning("%s", error)
            code, reason = grpc.StatusCode.INTERNAL, str(error)
        context.abort(code, reason)
        raise AssertionError  # abort has raised

    return handle
