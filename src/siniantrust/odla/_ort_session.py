"""ONNX Runtime sessions that fail closed: every node runs on the execution provider that was asked for, or none does.

ONNX Runtime by itself falls back to the CPU: for a provider that is not there or does not start, for nodes that a
provider does not take, and for a provider that fails during a run. Here all of them are errors.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx.external_data_helper import set_external_data

from siniantrust.errors import DeviceError
from siniantrust.graph import Part
from siniantrust.odla._proto import copy_fields
from siniantrust.odla._text import one_line

CPU = "CPUExecutionProvider"
# A serialised protobuf message must stay under 2 GiB; the rest of the message beside the weights needs some room.
_INLINE_LIMIT_BYTES = 2**31 - 2**26
# Tensors smaller than this stay in the model file when the others move out of it.
_EXTERNAL_THRESHOLD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How sessions are made. ``provider`` is the full name of an execution provider."""

    provider: str = CPU
    provider_options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    spinning: bool = True
    cpu_helpers: bool = False


def create_session(
    part: Part,
    config: SessionConfig,
    *,
    profile_prefix: str | None = None,
    allow_cpu: bool = False,
) -> Any:
    """Create a session for ``part`` and check where its nodes went.

    Args:
        part: The part.
        config: Provider, threads and the rest.
        profile_prefix: Path prefix of the profile to write; None for no profiling.
        allow_cpu: Let nodes go to the CPU and leave the check to the caller, who wants to know which.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        DeviceError: if ONNX Runtime refuses the part, or a node would run elsewhere than asked.
    """
    options = _options(config, helpers=config.cpu_helpers or allow_cpu)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    session = _created(part, config, lambda: _load(part, options, _providers(config, allow_cpu=allow_cpu)))
    if not allow_cpu:
        _check_placement(part, session, config)
    return session


def optimised(part: Part, config: SessionConfig) -> bytes:
    """Return ``part`` as the provider's session has it after all graph optimisations, as an ONNX file.

    Raises:
        DeviceError: as ``create_session``; or if the file would be over protobuf's 2 GiB.
    """
    if _weight_bytes(part.proto) > _INLINE_LIMIT_BYTES:
        raise DeviceError(f"part {part.name!r}: ONNX Runtime writes no optimised model of over 2 GiB")
    with tempfile.TemporaryDirectory(prefix="siniantrust-optimised-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = _options(config, helpers=config.cpu_helpers)
        options.optimized_model_filepath = str(path)
        session = _created(part, config, lambda: _load(part, options, _providers(config, allow_cpu=False)))
        _check_placement(part, session, config)
        return path.read_bytes()


def session_of_optimised(part: Part, data: bytes, config: SessionConfig) -> Any:
    """Create a session from what ``optimised`` returned for ``part``, and check where its nodes went.

    Raises:
        DeviceError: as ``create_session``.
    """
    import onnxruntime

    options = _options(config, helpers=config.cpu_helpers)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _created(part, config, lambda: _session(data, options, _providers(config, allow_cpu=False)))
    _check_placement(part, session, config)
    return session


def _options(config: SessionConfig, *, helpers: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Errors are raised, so that logging them too (severity 3) would say everything twice.
    options.log_severity_level = 4
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if config.spinning else "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if config.provider != CPU and not helpers:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _providers(config: SessionConfig, *, allow_cpu: bool) -> list[tuple[str, dict[str, str]]]:
    providers = [(config.provider, dict(config.provider_options))]
    if config.provider != CPU and (config.cpu_helpers or allow_cpu):
        providers.append((CPU, {}))
    return providers


def _created(part: Part, config: SessionConfig, create: Callable[[], Any]) -> Any:
    try:
        return create()
    except DeviceError:
        raise
    except Exception as error:
        reason = one_line(error)
        if "fallback to CPU EP has been explicitly disabled" in reason:
            reason = (
                "it does not take all nodes, or did not start; the option cpu_helpers=true allows helpers on the CPU"
            )
        raise DeviceError(f"part {part.name!r}: {config.provider} refused it: {reason}") from error


def nodes_by_provider(session: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the (name, op_type) of the nodes that each execution provider took."""
    placed: dict[str, list[tuple[str, str]]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        placed.setdefault(subgraph.ep_name, []).extend((node.name, node.op_type) for node in subgraph.get_nodes())
    return placed


def _check_placement(part: Part, session: Any, config: SessionConfig) -> None:
    active = session.get_providers()
    if not active or active[0] != config.provider:
        raise DeviceError(f"part {part.name!r}: {config.provider} was asked for, but ONNX Runtime chose {active}")
    placed = nodes_by_provider(session)
    strangers = {name: nodes for name, nodes in placed.items() if name != config.provider}
    if config.provider != CPU and config.provider not in placed:
        # Also where ONNX Runtime recorded no node at all: a check that cannot be made is no check passed.
        raise DeviceError(f"part {part.name!r}: {config.provider} took none of its nodes; all would run on the CPU")
    if config.cpu_helpers:
        strangers.pop(CPU, None)
    for provider, nodes in strangers.items():
        name, op_type = nodes[0]
        raise DeviceError(
            f"part {part.name!r}: {len(nodes)} nodes, first {name!r} ({op_type}), went to {provider} instead of "
            f"{config.provider}; the option cpu_helpers=true allows helpers on the CPU"
        )


def _load(part: Part, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
    if _weight_bytes(part.proto) <= _INLINE_LIMIT_BYTES:
        return _session(part.proto.SerializeToString(), options, providers)
    # The runtime maps the files into memory, so that the folder may go once the session stands.
    with tempfile.TemporaryDirectory(prefix="siniantrust-weights-") as folder:
        path = _write_external(part.proto, Path(folder))
        return _session(str(path), options, providers)


def _session(model: str | bytes, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
    import onnxruntime

    # The Python layer would by itself go over to the CPU, with a line on standard output, when a provider fails to
    # start and again when it fails during a run; and it would let the model's metadata set the session's options.
    return onnxruntime.InferenceSession(
        model, options, providers=providers, enable_fallback=0, read_config_from_model=0
    )


def _weight_bytes(proto: onnx.ModelProto) -> int:
    return sum(_tensor_bytes(tensor) for tensor in proto.graph.initializer)


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    itemsize = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    elements: int = math.prod(tensor.dims)
    return elements * itemsize


def _write_external(proto: onnx.ModelProto, folder: Path) -> Path:
    """Write ``proto`` with its large weights in a file beside it, leaving ``proto`` itself as it is.

    The weights are left out field by field, since protobuf cannot copy a message of this size as a whole.
    """
    slim = onnx.ModelProto()
    copy_fields(proto, slim, leaving_out="graph")
    copy_fields(proto.graph, slim.graph, leaving_out="initializer")
    with (folder / "weights.bin").open("wb") as stream:
        for tensor in proto.graph.initializer:
            target = slim.graph.initializer.add()
            if tensor.data_type == onnx.TensorProto.STRING or _tensor_bytes(tensor) < _EXTERNAL_THRESHOLD_BYTES:
                target.CopyFrom(tensor)
            else:
                _move_out(tensor, target, stream)
    path = folder / "model.onnx"
    path.write_bytes(slim.SerializeToString())
    return path


def _move_out(tensor: onnx.TensorProto, target: onnx.TensorProto, stream: BinaryIO) -> None:
    raw = tensor.raw_data if tensor.HasField("raw_data") else onnx.numpy_helper.to_array(tensor).tobytes()
    target.name, target.data_type = tensor.name, tensor.data_type
    target.dims.extend(tensor.dims)
    target.raw_data = b""  # the helper insists on the field
    set_external_data(target, location="weights.bin", offset=stream.tell(), length=len(raw))
    target.ClearField("raw_data")
    stream.write(raw)
