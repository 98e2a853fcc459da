"""Which nodes of a part an execution provider cannot run, and why."""

from __future__ import annotations

import onnx

from siniantrust.errors import DeviceError
from siniantrust.graph import Part
from siniantrust.odla._by_node import blamed_nodes, unsupported_ports
from siniantrust.odla._device import Unsupported
from siniantrust.odla._ort_session import CPU, SessionConfig, create_session, nodes_by_provider


def unsupported_nodes(part: Part, config: SessionConfig) -> list[Unsupported]:
    """Return the nodes that the provider cannot run; empty if the whole part loads and stays on the provider.

    The whole part is tried first, as ``compile`` would. Only if that fails is it asked which nodes are to blame.
    """
    if refused := unsupported_ports(part):
        return refused
    try:
        create_session(part, config)
    except DeviceError as refusal:
        blamed = _left_to_others(part, config) or _tried_one_by_one(part, config)
        return blamed or [Unsupported(node="", op_type="", reason=str(refusal))]
    return []


def _left_to_others(part: Part, config: SessionConfig) -> list[Unsupported]:
    if config.provider == CPU:
        return []
    try:
        session = create_session(part, config, allow_cpu=True)
    except DeviceError:
        return []
    return [
        Unsupported(node=name, op_type=op_type, reason=f"{config.provider} leaves it to {provider}")
        for provider, nodes in nodes_by_provider(session).items()
        if provider != config.provider
        for name, op_type in nodes
    ]


def _tried_one_by_one(part: Part, config: SessionConfig) -> list[Unsupported]:
    def verdict(proto: onnx.ModelProto) -> str | None:
        alone = Part(name="", proto=proto, inputs=(), outputs=(), node_names=(), batch_symbol=None)
        try:
            create_session(alone, config, allow_cpu=True)
        except DeviceError as refusal:
            return str(refusal).split(": ", 1)[-1]
        return None

    return blamed_nodes(part, verdict)
