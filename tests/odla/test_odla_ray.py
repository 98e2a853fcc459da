from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import numpy as np
import pytest
from odla_parts import PARTS, conv_part, gemm_part, random_inputs
from test_odla_conformance import assert_conforms

from siniantrust.errors import DataError, DeviceError, DeviceLostError, MissingExtraError
from siniantrust.graph import Part
from siniantrust.odla import CheckedExecutable, Device, DeviceSpec, memory_use, open_device, open_part
from siniantrust.odla.ray import NAMESPACE

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

Spec = Callable[..., DeviceSpec]


@pytest.fixture
def on_cluster(ray_cluster: Any) -> Spec:
    """Return a function that describes a device on the cluster."""

    def described(**options: Any) -> DeviceSpec:
        dotted = {name.replace("__", "."): value for name, value in options.items()}
        return DeviceSpec("far", "ray", {"address": ray_cluster.address, "inner.threads": 1, **dotted})

    return described


@pytest.fixture(scope="module")
def device(ray_cluster: Any) -> Iterator[Device]:
    """Return a device for tests that do it no harm."""
    spec = DeviceSpec("far", "ray", {"address": ray_cluster.address, "inner.threads": 1})
    with closing(open_device(spec)) as opened:
        yield opened


def _actors() -> list[str]:
    listed = ray.util.list_named_actors(all_namespaces=True)
    return [entry["name"] for entry in listed if entry["namespace"] == NAMESPACE]


def _await(condition: Callable[[], bool]) -> None:
    """Wait for what the cluster does in its own time."""
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def _opened(device: Device) -> Any:
    """Return what the actor says of itself."""
    return device._opened  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(PARTS))
def test_an_actor_computes_the_reference(name: str, device: Device) -> None:
    """Outputs come back with the reference's names, dtypes, shapes and values, in arrays of the caller's own."""
    part = PARTS[name]()
    assert device.supports(part) == []
    with closing(device.compile(part)) as executable:
        for batch in (1, 3):
            inputs = random_inputs(part, batch=batch, seed=batch)
            assert_conforms(executable, part, inputs)
            assert all(array.flags.writeable and array.flags.owndata for array in executable.run(inputs).values())


def test_large_arrays_pass_through_the_object_store(device: Device) -> None:
    """An array that is too large for a message, and not contiguous, arrives whole and leaves whole."""
    part = gemm_part()
    with closing(device.compile(part)) as executable:
        view = np.random.default_rng(5).standard_normal((6, 40_000)).astype(np.float32).T
        assert view.nbytes > 900_000
        assert_conforms(executable, part, {"x": view})


def test_several_parts_share_an_actor(device: Device) -> None:
    """Two parts on one device keep apart, and freeing one leaves the other."""
    first, second = gemm_part(), gemm_part(seed=3)
    inputs = random_inputs(first)
    kept = device.compile(second)
    with closing(device.compile(first)) as freed:
        assert_conforms(freed, first, inputs)
        assert_conforms(kept, second, inputs)
    assert_conforms(kept, second, inputs)
    with pytest.raises(DeviceError, match="part 'gemm' was closed"):
        freed.run(inputs)
    freed.close()
    kept.close()


def test_inputs_that_do_not_fit_are_refused_before_they_are_sent(device: Device) -> None:
    """The message is the one of every backend, and speaks of no actor."""
    with closing(device.compile(gemm_part())) as executable, pytest.raises(DataError, match="must be float32"):
        executable.run({"x": np.zeros((1, 6))})


def test_the_device_says_what_computes_and_where(device: Device) -> None:
    """Description and memory are those of the device on the node; the identity changes with it and with Ray."""
    inner = open_device(DeviceSpec("here", options={"threads": 1})).info()
    found = device.info()
    assert (found.name, found.backend, found.memory_bytes) == ("far", "ray", inner.memory_bytes)
    assert found.description.startswith(f"{inner.description}; on node ")
    assert _opened(device).node_id[:12] in found.description
    assert found.identity == f"ray-{ray.__version__}/{inner.identity}"
    assert _opened(device).process_id != os.getpid()
    with closing(device.compile(conv_part())) as executable:
        assert memory_use(executable).basis.startswith("counted from the graph")


@pytest.mark.slow
def test_the_inner_backend_is_a_choice(on_cluster: Spec) -> None:
    """With PyTorch on the node the outputs are the reference's; its refusals come back node by node."""
    pytest.importorskip("torch", reason="the extra 'torch' is not installed")
    spec = DeviceSpec("far", "ray", {"address": on_cluster().options["address"], "inner": "torch"})
    with closing(open_device(spec)) as device:
        part = conv_part()
        assert "PyTorch" in device.info().description
        assert_conforms(device.compile(part), part, random_inputs(part, batch=2))


def test_closing_a_device_ends_its_actor(on_cluster: Spec) -> None:
    """The actor is there while the device is open; closing it again does nothing."""
    before = _actors_when_joined(on_cluster)
    device = open_device(on_cluster())
    (name,) = set(_actors()) - before
    assert name.startswith("far-")
    device.close()
    device.close()
    _await(lambda: name not in _actors())


def _actors_when_joined(on_cluster: Spec) -> set[str]:
    open_device(on_cluster()).close()
    return set(_actors())


def _is_lost(executable: CheckedExecutable, part: Part) -> bool:
    try:
        executable.run(random_inputs(part))
    except DeviceLostError:
        return True
    return False


def _lose(opened: tuple[Device, CheckedExecutable], part: Part, match: str) -> None:
    device, executable = opened
    for _ in range(2):
        with pytest.raises(DeviceLostError, match=rf"device 'far', part 'gemm': .*{match}"):
            executable.run(random_inputs(part))
    executable.close()
    device.close()


def test_a_killed_process_is_a_lost_device(on_cluster: Spec) -> None:
    """The error names device and part, again at the next call; a device that is opened anew serves."""
    part = gemm_part()
    opened = open_part(on_cluster(), part)
    assert_conforms(opened[1], part, random_inputs(part))
    os.kill(_opened(opened[0]).process_id, signal.SIGKILL)
    _lose(opened, part, "its Ray actor is lost")
    device, executable = open_part(on_cluster(), part)
    assert_conforms(executable, part, random_inputs(part))
    device.close()


def test_a_node_that_goes_is_a_lost_device(ray_cluster: Any, on_cluster: Spec) -> None:
    """A device is on the node that has what it claims, and is lost with it; nothing else has room for it then."""
    node = ray_cluster.add_node(num_cpus=1, resources={"lab": 1}, object_store_memory=100 << 20)
    part = gemm_part()
    opened = open_part(on_cluster(resource__lab=1), part)
    assert _opened(opened[0]).node_id == node.node_id
    ray_cluster.remove_node(node, allow_graceful=False)
    _await(lambda: _is_lost(opened[1], part))  # on this one machine the process outlives its raylet for a moment
    _lose(opened, part, "its Ray actor is lost")
    with pytest.raises(DeviceLostError, match=r"did not answer within 1 s; it claims num_cpus 1, .*, lab 1 of one"):
        open_part(on_cluster(resource__lab=1, timeout_s=1), part)


def test_an_actor_that_does_not_answer_is_lost(on_cluster: Spec) -> None:
    """A process that stands still costs a call its time and no more."""
    part = gemm_part()
    opened = open_part(on_cluster(), part)
    # The time was enough to start; a call gets less.
    opened[1].inner._timeout_s = 1.0  # type: ignore[attr-defined]
    process_id = _opened(opened[0]).process_id
    os.kill(process_id, signal.SIGSTOP)
    try:
        _lose(opened, part, "did not answer within 1 s")
    finally:
        with suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def test_no_actor_is_left_by_a_device_that_does_not_open(on_cluster: Spec) -> None:
    """What the inner backend refuses is said in its own words, and its actor is gone."""
    before = _actors_when_joined(on_cluster)
    for options, said in (
        ({"inner": "nowhere"}, "there is no backend 'nowhere'"),
        ({"inner.provider": "Nothing"}, "device 'far': NothingExecutionProvider is not available"),
        ({"resource.lab": 5, "timeout_s": 1}, "did not answer within 1 s"),
        ({"resource.CPU": 1}, "device 'far': Ray starts no actor for it: Use the 'num_cpus'"),
    ):
        with pytest.raises(DeviceError, match=said):
            open_device(DeviceSpec("far", "ray", {"address": on_cluster().options["address"], **options}))
    _await(lambda: set(_actors()) <= before)


def test_another_version_on_the_node_is_refused(on_cluster: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part is not handed to another version of SinianTrust."""
    monkeypatch.setattr("siniantrust.odla.ray.__version__", "0.0.0")
    with pytest.raises(DeviceError, match=r"has siniantrust \S+, this process 0\.0\.0"):
        open_device(on_cluster())


def test_a_process_has_one_cluster(on_cluster: Spec) -> None:
    """Another address than that of the cluster which this process is in is refused."""
    address = on_cluster().options["address"]
    open_device(on_cluster()).close()
    with pytest.raises(DeviceError, match=f"is connected to the Ray cluster at {address}, and cannot use"):
        open_device(DeviceSpec("far", "ray", {"address": "127.0.0.1:1"}))
    open_device(DeviceSpec("far", "ray", {"num_cpus": 0.5})).close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"place": "x"}, "it has address, inner, num_cpus, num_gpus, timeout_s, inner.*, resource.*"),
        ({"inner": "ray"}, "option 'inner' must be a backend that computes, found 'ray'"),
        ({"num_gpus": -1}, "option 'num_gpus' must be a number of at least 0, found -1"),
        ({"num_cpus": "many"}, "option 'num_cpus' must be a number, found 'many'"),
        ({"num_cpus": True}, "option 'num_cpus' must be a number of at least 0, found True"),
        ({"timeout_s": 0}, "option 'timeout_s' must be a positive number of seconds, found 0"),
    ],
)
def test_options_are_checked_before_anything_is_reached(options: dict[str, Any], said: str) -> None:
    """An option that is unknown or makes no sense is one line, and no cluster is looked for."""
    with pytest.raises(DeviceError) as refusal:
        open_device(DeviceSpec("far", "ray", options))
    assert said in str(refusal.value)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that installs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"ray is not installed; run: pip install 'siniantrust\[ray\]'"):
        open_device(DeviceSpec("far", "ray"))


_ALONE = """
    import os, sys
    import numpy as np
    import ray
    from odla_parts import gemm_part, random_inputs
    from siniantrust.errors import DeviceError, DeviceLostError
    from siniantrust.odla import DeviceSpec, open_device

    def refused(options):
        try:
            open_device(DeviceSpec("far", "ray", options))
        except DeviceError as refusal:
            print(refusal)

    refused({"address": "127.0.0.1:9"})
    for address in ("", "local", "auto", "ray://127.0.0.1:10001"):
        refused({"address": address})
    device = open_device(DeviceSpec("far", "ray", {"address": sys.argv[1]}))
    executable = device.compile(gemm_part())
    executable.run(random_inputs(gemm_part()))
    ray.shutdown()
    for use in (lambda: executable.run(random_inputs(gemm_part())), lambda: device.compile(gemm_part())):
        try:
            use()
        except DeviceLostError as lost:
            print(lost)
    executable.close()
    device.close()
    print(ray.is_initialized())
"""


def test_a_cluster_is_never_started(ray_cluster: Any) -> None:
    """No cluster, none named, or one that was left: each is an error of one line, where Ray would start one itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", _ALONE.replace("\n    ", "\n"), ray_cluster.address]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    nowhere, *unnamed, first, second, joined = run.stdout.splitlines()
    assert nowhere.startswith("device 'far': no Ray cluster at 127.0.0.1:9: [Errno 111] Connection refused; start one")
    said = "device 'far': option 'address' (or RAY_ADDRESS) must be host:port of a Ray cluster's head, found "
    assert [line.removeprefix(said).partition(";")[0] for line in unnamed] == [
        "''",
        "'local'",
        "'auto'",
        "'ray://127.0.0.1:10001'",
    ]
    assert [first, second] == ["this process left the Ray cluster"] * 2
    assert joined == "False"
