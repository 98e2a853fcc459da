"""Finding backends by entry point."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path

import pytest

from siniantrust.errors import DeviceError, MissingExtraError
from siniantrust.odla import DeviceSpec, _registry, available_backends, list_devices, open_device


def with_entries(monkeypatch: pytest.MonkeyPatch, *extra: tuple[str, str]) -> None:
    """Pretend that other distributions registered backends."""
    known = entry_points(group=_registry.GROUP)
    added = [EntryPoint(name, value, _registry.GROUP) for name, value in extra]
    monkeypatch.setattr(_registry, "_registered", lambda _: EntryPoints([*known, *added]))


def test_in_tree_backends_are_found() -> None:
    """Our backends are all found; each is ready, or says what to install."""
    verdicts = available_backends()
    assert sorted(verdicts) == ["iree", "null", "onnxruntime", "openvino", "ray", "remote", "torch"]
    assert all(verdicts[name] == "ready" for name in ("null", "onnxruntime", "remote", "torch"))
    for name in ("iree", "openvino"):
        assert verdicts[name] == "ready" or f"pip install 'siniantrust[{name}]'" in verdicts[name]


@pytest.mark.parametrize(
    ("backend", "library"), [("openvino", "openvino"), ("iree", "iree.runtime"), ("torch", "torch")]
)
def test_a_missing_runtime_gives_the_line_that_installs_it(
    backend: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its library a backend names its extra."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        MissingExtraError, match=rf"^{library} is not installed; run: pip install 'siniantrust\[{backend}\]'$"
    ):
        open_device(DeviceSpec("x", backend))


def test_unknown_backend_lists_the_known() -> None:
    """A backend that nobody registered is an error that lists those that are."""
    with pytest.raises(DeviceError, match="'npu': there is no backend 'abacus'; known are iree, null, onnxruntime"):
        open_device(DeviceSpec("npu", "abacus"))


def test_broken_plug_in_breaks_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A third-party backend that fails at import is reported by name, and the others work on."""
    (tmp_path / "odla_broken_plugin.py").write_text("raise RuntimeError('no\\ndriver')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with_entries(monkeypatch, ("broken", "odla_broken_plugin:open_device"), ("gone", "odla_no_such_module:open_device"))
    verdicts = available_backends()
    assert verdicts["onnxruntime"] == "ready"
    assert verdicts["broken"].endswith("RuntimeError: no driver")
    assert "No module named 'odla_no_such_module'" in verdicts["gone"]
    assert "cpu" in [info.name for info in list_devices()]
    assert open_device(DeviceSpec("cpu")).info().name == "cpu"
    with pytest.raises(DeviceError, match="backend 'broken' does not load"):
        open_device(DeviceSpec("x", "broken"))


def test_plug_in_that_fails_when_asked_breaks_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A backend whose library is too old, or that cannot list its devices, is reported and left out."""
    (tmp_path / "odla_old_plugin.py").write_text(
        "def check_ready(): raise OSError('too old')\ndef open_device(spec): ...\n", encoding="utf-8"
    )
    (tmp_path / "odla_blind_plugin.py").write_text(
        "def devices(): raise OSError('bus error')\ndef open_device(spec): ...\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with_entries(monkeypatch, ("old", "odla_old_plugin:open_device"), ("blind", "odla_blind_plugin:open_device"))
    assert available_backends()["old"] == "backend 'old' is not usable: OSError: too old"
    with pytest.raises(DeviceError, match="'old' is not usable"):
        open_device(DeviceSpec("x", "old"))
    assert "cpu" in [info.name for info in list_devices()]
    assert "backend 'blind' cannot list its devices: bus error" in caplog.text


def test_a_distribution_that_comes_later_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is registered is read once, and again when the path has changed."""
    reads: list[str] = []

    def read(*, group: str) -> EntryPoints:
        reads.append(group)
        return entry_points(group=group)

    monkeypatch.setattr(_registry, "entry_points", read)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert all("late" not in _registry._backends() for _ in range(3))
    assert len(reads) == 1
    folder = tmp_path / "late-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1\n", encoding="utf-8")
    (folder / "entry_points.txt").write_text(f"[{_registry.GROUP}]\nlate = late:open_device\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert _registry._backends()["late"].value == "late:open_device"


def test_two_claims_on_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second distribution cannot take over a backend's name unnoticed; the same claim twice is one."""
    with_entries(monkeypatch, ("onnxruntime", "siniantrust.odla.onnxruntime:open_device"))
    assert available_backends()["onnxruntime"] == "ready"
    with_entries(monkeypatch, ("onnxruntime", "somebody.else:open_device"))
    with pytest.raises(DeviceError, match="backend 'onnxruntime' is claimed twice"):
        open_device(DeviceSpec("cpu"))


def test_missing_library_gives_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gRPC the remote backend names its extra, and ONNX Runtime is still ready."""
    monkeypatch.setitem(sys.modules, "grpc", None)
    verdicts = available_backends()
    assert verdicts["onnxruntime"] == "ready"
    assert verdicts["remote"] == "grpc is not installed; run: pip install 'siniantrust[remote]'"
    with pytest.raises(MissingExtraError, match="pip install"):
        open_device(DeviceSpec("cloud", "remote", {"url": "grpc://127.0.0.1:1"}))


def test_import_is_light() -> None:
    """Importing the room loads no runtime, no gRPC and no web server."""
    heavy = ["onnxruntime", "grpc", "torch", "openvino", "iree", "starlette", "uvicorn", "httpx"]
    code = f"import sys, siniantrust.odla; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
