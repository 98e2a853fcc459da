"""The manifest of an enclave for one bundle, as a template for ``gramine-manifest``. Untested on hardware.

The bundle's manifest and its trusted parts are among the trusted files, so that MRENCLAVE is that of this bundle's
enclave and no other's: a key that the broker keeps for it goes to no enclave of another bundle. The weights among them
are sealed; nothing in the manifest is secret.
"""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "sinian"
_LIBRARIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu")
# What Python, numpy, ONNX Runtime and Gramine itself take beside the parts.
_RUNTIME_BYTES = 1 << 30
# While a part loads, its weights are there as they came, opened, and in ONNX Runtime.
_COPIES = 3
_SESSIONS = 16
_OTHER_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclavePlan:
    """What an enclave of Gramine is for.

    Attributes:
        bundle_id: the bundle.
        folder: the bundle's folder.
        files: its files that the enclave holds, from the folder.
        enclave_bytes: what the trusted parts hold at once, as the planner counts it.
        threads: threads that a part computes with.
        listen: HOST:PORT of the service.
        broker: HOST:PORT of the key broker.
        broker_key: SHA-256 of the broker's key.
    """

    bundle_id: str
    folder: Path
    files: Sequence[str]
    enclave_bytes: int
    threads: int
    listen: str
    broker: str
    broker_key: str


def enclave_size_bytes(plan: EnclavePlan) -> int:
    """Return the enclave's size: what the planner's figure and the runtime need, rounded up to a power of two."""
    return 1 << (_RUNTIME_BYTES + _COPIES * plan.enclave_bytes - 1).bit_length()


def manifest_template(plan: EnclavePlan) -> str:
    """Return the template. Paths are this machine's: Python, its packages and the system's libraries."""
    python = Path(sys.executable)
    folders = _outermost([*map(Path, _LIBRARIES), *_python_folders()])
    files = [path for path in _python_files() if not _is_within(path, folders)]
    bundle = plan.folder.resolve()
    mounts: list[Mapping[str, str]] = [
        {"path": "/lib", "uri": "file:{{ gramine.runtimedir() }}"},
        *({"path": str(path), "uri": f"file:{path}"} for path in (*folders, *files)),
        {"path": "/bundle", "uri": f"file:{bundle}"},
        {"type": "tmpfs", "path": "/tmp"},  # noqa: S108 - it is the enclave's own memory
    ]
    trusted = [
        "file:{{ gramine.libos }}",
        "file:{{ gramine.runtimedir() }}/",
        *(f"file:{path}/" for path in folders),
        *(f"file:{path}" for path in files),
        *(f"file:{bundle / name}" for name in sorted(plan.files)),
    ]
    arguments = ["enclave", "serve", "--attester", "gramine", "--listen", plan.listen, "--threads", str(plan.threads)]
    arguments += ["--sessions", str(_SESSIONS), "--broker", plan.broker, "--broker-key", plan.broker_key]
    start = "import sys; from siniantrust.cli import main; sys.exit(main())"
    size_mib = enclave_size_bytes(plan) >> 20
    lines = [
        f"# The enclave of bundle {plan.bundle_id}; made by `sinian gramine manifest`. Untested on hardware.",
        f"#   gramine-manifest {NAME}.manifest.template {NAME}.manifest",
        f"#   gramine-sgx-sign --manifest {NAME}.manifest --output {NAME}.manifest.sgx",
        f"#   sinian gramine reference {NAME}.sig -o reference.toml",
        f"#   gramine-sgx {NAME}",
        "",
        'loader.entrypoint.uri = "file:{{ gramine.libos }}"',
        f"libos.entrypoint = {_text(str(python.resolve()))}",
        'loader.log_level = "error"',
        f"loader.argv = {_list([str(python), '-I', '-c', start, *arguments])}",
        f"loader.env.LD_LIBRARY_PATH = {_text(':'.join(['/lib', *_LIBRARIES, sysconfig.get_config_var('LIBDIR')]))}",
        'loader.env.HOME = "/"',
        f"loader.env.OMP_NUM_THREADS = {_text(str(plan.threads))}",
        "sys.enable_sigterm_injection = true",
        f"fs.mounts = [\n{_lines(map(_table, mounts))}]",
        "",
        "sgx.debug = false",
        'sgx.remote_attestation = "dcap"',
        f'sgx.enclave_size = "{size_mib}M"',
        f"sgx.max_threads = {_SESSIONS + plan.threads + _OTHER_THREADS}",
        f"sgx.trusted_files = [\n{_lines(map(_text, trusted))}]",
    ]
    return "\n".join(lines) + "\n"


def _python_folders() -> list[Path]:
    """Return the folders of Python's own library, of its packages, and of this one."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return [*(Path(sysconfig.get_path(name)) for name in names), Path(__file__).resolve().parents[3]]


def _python_files() -> list[Path]:
    """Return the interpreter, as it is called and as it is; what says where its packages are; and its library."""
    called = Path(sys.executable)
    library = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
    files = {called, called.resolve(), Path(sys.prefix, "pyvenv.cfg"), library}
    return sorted(path for path in files if path.is_file())


def _is_within(path: Path, folders: Sequence[Path]) -> bool:
    return any(path != folder and path.is_relative_to(folder) for folder in folders)


def _outermost(folders: Sequence[Path]) -> list[Path]:
    """Return the folders that are in no other one."""
    return [folder for folder in sorted(set(folders)) if not _is_within(folder, folders)]


def _text(text: str) -> str:
    """Return a TOML string; JSON's are such, but for escapes of characters beyond 16 bits."""
    return json.dumps(text, ensure_ascii=False)


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, texts))}]"


def _table(entries: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{name} = {_text(value)}" for name, value in entries.items()) + " }"


def _lines(items: map[str]) -> str:
    return "".join(f"  {item},\n" for item in items)
