"""The ``remote`` backend: a model on any server that speaks the Open Inference Protocol, over gRPC or REST."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from siniantrust._extras import require
from siniantrust.errors import DeviceError, DeviceLostError, ProtocolError
from siniantrust.graph import Part, Tensor
from siniantrust.odla._calibration import LINK
from siniantrust.odla._call_cost import CallCost, measure_link
from siniantrust.odla._device import Arrays, DeviceInfo, DeviceSpec, HeldModel, Unsupported
from siniantrust.odla._options import read_options
from siniantrust.odla._remote_check import Trial, accepted, check_digest, check_metadata, check_trial, local_trial
from siniantrust.odla._remote_link import measure_by_refusals
from siniantrust.odla._signature import Signature, signature_of
from siniantrust.odla.oip._client import Client, Target, check_token_is_safe, read_url
from siniantrust.odla.oip._grpc_client import GrpcClient
from siniantrust.odla.oip._guard import token_from
from siniantrust.odla.oip._messages import InferAnswer
from siniantrust.odla.oip._rest_client import RestClient

OPTIONS: Mapping[str, str] = {
    "url": "grpc://host:port, grpcs://host:port, http://host:port or https://host:port",
    "model": "the model's name at the server; default: the part's name",
    "version": "the model's version at the server; default: the server chooses",
    "timeout_s": "seconds that one call may take; default 60",
    "verify": "compare the server's outputs with the part's own before use; default true",
    "ca_file": "PEM file of the authorities that the server's certificate may come from; default: the system's",
    "token_env": "environment variable that holds the bearer token to present; default: none is presented",
}


def check_ready() -> None:
    """Raise MissingExtraError if a library is not installed, or what protobuf itself raises if it is too old."""
    require("grpc", extra="remote")
    importlib.import_module("siniantrust.odla.oip.open_inference_pb2")


def open_device(spec: DeviceSpec) -> RemoteDevice:
    """Open a server as a device. Nothing is sent before a part is compiled.

    Raises:
        DeviceError: for an unknown option or one that cannot be used.
    """
    options = read_options(spec, OPTIONS)
    url = options.text("url", "")
    if not url:
        raise DeviceError(f"device {spec.name!r}: option 'url' is missing; {OPTIONS['url']}")
    scheme, host, port = read_url(url)
    ca_file = options.text("ca_file", "")
    if ca_file and not os.access(ca_file, os.R_OK):
        raise DeviceError(f"device {spec.name!r}: ca_file {ca_file} cannot be read")
    variable = options.text("token_env", "")
    target = Target(
        url=url,
        scheme=scheme,
        host=host,
        port=port,
        model=options.text("model", ""),
        version=options.text("version", ""),
        timeout_s=options.seconds("timeout_s", 60.0),
        ca_file=Path(ca_file) if ca_file else None,
        token=token_from(variable) if variable else None,
    )
    check_token_is_safe(target)
    return RemoteDevice(spec, target, verify=options.flag("verify", default=True))


@dataclass(frozen=True)
class _Expectation:
    """What the server's model has to be. ``trial`` is None when its outputs are not compared."""

    part: Part
    signature: Signature
    trial: Trial | None


class RemoteDevice:
    """A server of the Open Inference Protocol."""

    def __init__(self, spec: DeviceSpec, target: Target, *, verify: bool) -> None:
        self.spec = spec
        self._target = target
        self._verify = verify

    def info(self) -> DeviceInfo:
        """Say where the server is; it is not asked."""
        target = self._target
        return DeviceInfo(
            name=self.spec.name,
            backend=self.spec.backend,
            description=f"Open Inference Protocol server at {target.url}",
            identity=f"remote/{target.url}/{target.model}/{target.version}",
            memory_bytes=None,
        )

    def supports(self, part: Part) -> list[Unsupported]:
        """Ask the server whether it has ``part``, as ``compile`` does; which nodes it lacks, no server says.

        Raises:
            DeviceLostError: if the server does not answer.
        """
        try:
            self.compile(part).close()
        except DeviceLostError:
            raise
        except DeviceError as refusal:
            return [Unsupported(node="", op_type="", reason=str(refusal))]
        return []

    def compile(self, part: Part) -> RemoteExecutable:
        """Connect, and check that the server's model is ``part``: its ports and, with ``verify``, what it computes.

        Raises:
            DeviceError: naming the difference.
            DeviceLostError: if the server does not answer.
            ProtocolError: if it answers with anything but the protocol.
        """
        trial = local_trial(part) if self._verify else None
        target = replace(self._target, model=self._target.model or part.name)
        return RemoteExecutable(lambda: (_client(target), target), _Expectation(part, signature_of(part), trial))

    def held(self, name: str) -> HeldModel | None:
        """Ask what the server's model takes and gives: the one that the options name, else ``name``.

        Returns:
            None if the server does not have such a model, or does not tell.

        Raises:
            DeviceLostError: if the server does not answer.
        """
        with closing(_client(replace(self._target, model=self._target.model or name))) as client:
            try:
                metadata = client.model_metadata()
            except DeviceLostError:
                raise
            except DeviceError:
                return None
        return HeldModel(
            inputs=frozenset(tensor.name for tensor in metadata.inputs),
            outputs=frozenset(tensor.name for tensor in metadata.outputs),
        )

    def calibration(self) -> RemoteDevice:
        """Return the same server as a device for the small parts that ours serve under names of their own."""
        return RemoteDevice(self.spec, replace(self._target, model="", version=""), verify=self._verify)

    def call_cost(self) -> CallCost:
        """Measure the way there and back with the part that our servers have for it, else with what they refuse.

        Raises:
            DeviceLostError: if the server does not answer.
        """
        url = self._target.url
        try:
            return measure_link(self.calibration(), basis=f"calls that only move data to {url} and back measured")
        except DeviceLostError:
            raise
        except DeviceError:
            with closing(_client(replace(self._target, model=LINK, version=""))) as client:
                return measure_by_refusals(client, url=url, is_grpc=self._target.scheme.startswith("grpc"))

    def close(self) -> None:
        """Do nothing: connections belong to the executables."""


def _client(target: Target) -> Client:
    return GrpcClient(target) if target.scheme.startswith("grpc") else RestClient(target)


class RemoteExecutable:
    """A part on a server.

    The server is checked again after every lost connection, since another may have taken its place, and each answer's
    model version is compared. A server that names no versions and swaps its model while connected goes unnoticed.
    """

    def __init__(self, connect: Callable[[], tuple[Client, Target]], expectation: _Expectation) -> None:
        self.inputs: tuple[Tensor, ...] = expectation.part.inputs
        self.outputs: tuple[Tensor, ...] = expectation.part.outputs
        self._expectation = expectation
        self._client, self._target = connect()
        self._where = f"model {self._target.model!r} at {self._target.url}"
        self._output_names = [port.name for port in expectation.signature.outputs]
        self._versions: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._is_checked = False
        self._is_closed = False
        try:
            self._check_server()
        except BaseException:
            self._client.close()
            raise

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once at the server.

        Raises:
            DataError: for inputs that do not fit; nothing was sent.
            DeviceLostError: if the server does not answer; the next call connects and checks anew.
            ProtocolError: if the answer is malformed or does not fit the part.
            DeviceError: if the server refuses, or serves another model by now.
        """
        extents = self._expectation.signature.check_inputs(inputs)
        with self._lock:
            if self._is_closed:
                raise DeviceError(f"{self._where} was closed")
            if not self._is_checked:
                self._check_server()
        try:
            return self._accepted(self._client.infer(inputs, self._output_names), extents)
        except (DeviceLostError, ProtocolError):
            self._is_checked = False
            raise

    def close(self) -> None:
        """Hang up."""
        self._is_closed = True
        self._client.close()

    def _check_server(self) -> None:
        client, expectation, where = self._client, self._expectation, self._where
        if not client.server_ready():
            raise DeviceError(f"the server at {self._target.url} is not ready")
        if not client.model_ready():
            raise DeviceError(f"{where} is not ready")
        metadata = client.model_metadata()
        check_metadata(metadata, expectation.signature, where=where)
        self._versions = (self._target.version,) if self._target.version else metadata.versions
        if expectation.trial is None:
            check_digest(metadata, expectation.part, where=where)
        else:
            extents = expectation.signature.check_inputs(expectation.trial.inputs)
            answer = client.infer(expectation.trial.inputs, self._output_names)
            check_trial(expectation.trial, self._accepted(answer, extents), where=where)
        self._is_checked = True

    def _accepted(self, answer: InferAnswer, extents: Mapping[str, int]) -> dict[str, np.ndarray]:
        if answer.version and self._versions and answer.version not in self._versions:
            raise ProtocolError(
                f"{self._where} answered as version {answer.version[:80]!r}, expected {self._versions[0]!r}"
            )
        return accepted(answer, self._expectation.signature, extents, where=self._where)
