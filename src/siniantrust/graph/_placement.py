"""Which node runs where, written into the model itself as ONNX IR version 11 device configurations.

The fields are those of the ONNX IR specification, "Multi-device configuration": ``ModelProto.configuration`` lists the
devices, ``NodeProto.device_configurations`` places each node's outputs on one of them. Runtimes that do not know the
fields run the model as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from siniantrust.errors import PlanError

_CONFIGURATION = "siniantrust"
_IR_WITH_DEVICES = 11


def with_device_configurations(
    proto: onnx.ModelProto, *, devices: Sequence[str], assignment: Mapping[str, str]
) -> onnx.ModelProto:
    """Return a copy of ``proto`` that says on which device each node runs.

    Args:
        proto: a model whose nodes have unique names.
        devices: names of all devices, in the order that the configuration lists them.
        assignment: node name to device name; nodes left out are placed nowhere.

    Raises:
        PlanError: if a device is listed twice, or ``assignment`` names an unknown device or node.
    """
    if len(set(devices)) != len(devices) or not devices:
        raise PlanError(f"device configuration: device names must differ and not be empty, found {list(devices)}")
    number = {name: index for index, name in enumerate(devices)}
    for node_name, device in assignment.items():
        if device not in number:
            raise PlanError(f"device configuration: node '{node_name}' is on '{device}', not one of {list(devices)}")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.ir_version = max(copy.ir_version, _IR_WITH_DEVICES)
    _remove(copy)
    copy.configuration.add(name=_CONFIGURATION, num_devices=len(devices), device=list(devices))
    missing = set(assignment)
    for node in copy.graph.node:
        if node.name in assignment:
            missing.discard(node.name)
            placed = node.device_configurations.add(configuration_id=_CONFIGURATION)
            for output in node.output:
                if output:
                    placed.sharding_spec.add(tensor_name=output, device=[number[assignment[node.name]]])
    if missing:
        raise PlanError(f"device configuration: the model has no node '{min(missing)}'")
    return copy


def read_device_configurations(proto: onnx.ModelProto) -> dict[str, str]:
    """Return node name to device name, as ``with_device_configurations`` wrote them; empty if it never did.

    Raises:
        PlanError: if a node's configuration names no device, several, or one that the model does not list.
    """
    devices = next((list(each.device) for each in proto.configuration if each.name == _CONFIGURATION), [])
    assignment: dict[str, str] = {}
    for node in proto.graph.node:
        for placed in node.device_configurations:
            if placed.configuration_id != _CONFIGURATION:
                continue
            numbers = {number for spec in placed.sharding_spec for number in spec.device}
            if len(numbers) != 1 or not 0 <= min(numbers) < len(devices):
                raise PlanError(
                    f"device configuration: node '{node.name}' needs one of the {len(devices)} devices, "
                    f"found {sorted(numbers)}"
                )
            assignment[node.name] = devices[numbers.pop()]
    return assignment


def _remove(proto: onnx.ModelProto) -> None:
    """Remove an earlier configuration of ours; others stay."""
    for index in reversed(range(len(proto.configuration))):
        if proto.configuration[index].name == _CONFIGURATION:
            del proto.configuration[index]
    for node in proto.graph.node:
        for index in reversed(range(len(node.device_configurations))):
            if node.device_configurations[index].configuration_id == _CONFIGURATION:
                del node.device_configurations[index]
