"""Setting the emulated machine up in the cache: every piece comes from Debian, and what it lacks is built from source.

Steps are kept as they end, so that a setup that was interrupted goes on where it was. OP-TEE's packages are in Debian
13; the kernel, TF-A and the compiler are taken from Debian 12, with which all of this was tried. Versions are not
pinned: mirrors drop them at every point release.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from siniantrust._files import folder_atomic, sha256_file, write_atomic
from siniantrust.trust.optee._apt import ForeignArchive, install, mirror, require_debian, run
from siniantrust.trust.optee._cache import CROSS_COMPILE, PLATFORM, SOURCES, cache_folder, guest_key

_HOST = {
    "aarch64-linux-gnu-gcc": ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
    "gcc": ("gcc", "libc6-dev"),
    "cpio": ("cpio",),
    "dpkg-source": ("dpkg-dev", "xz-utils"),
    "dtc": ("device-tree-compiler",),
    "make": ("make",),
    "qemu-system-aarch64": ("qemu-system-arm",),
    "/usr/include/openssl/ssl.h": ("libssl-dev",),
}
_TEE_SUITE, _BASE_SUITE = "trixie", "bookworm"
_TEE_PACKAGES = ("optee-os", "optee-os-dev", "tee-supplicant", "libteec2", "optee-client-dev", "libc6")
_KERNEL = f"linux-image-arm64/{_BASE_SUITE}"
_MODULES = ("tee", "optee", "virtio_mmio", "virtio_console")
_LIBRARIES = "lib/aarch64-linux-gnu"
_BL33_ADDRESS = 0x60000000
# Where TF-A's first step looks for the others in the flash (PLAT_QEMU_FIP_BASE).
_FIP_OFFSET = 0x40000


def set_up(tell: Callable[[str], None]) -> None:
    """Fetch and build everything; ``tell`` gets a line for every step.

    Raises:
        EnclaveError: if this is no Debian, a package is missing and this user may not install it, or a step fails.
    """
    require_debian()
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for number, (what, step) in enumerate(_STEPS, start=1):
        done = step(folder)
        tell(f"[{number}/{len(_STEPS)}] {what}: {done}")


def _host_packages(_folder: Path) -> str:
    missing = [
        name
        for tool, names in _HOST.items()
        if shutil.which(tool) is None and not Path(tool).exists()
        for name in names
    ]
    if missing:
        install(missing)
    return f"installed {', '.join(missing)}" if missing else "all there"


def _guest_packages(folder: Path) -> str:
    packages = folder / "packages"
    if packages.is_dir():
        return "all there"
    archive = ForeignArchive(folder / "apt", uri=mirror(), suites=(_TEE_SUITE, _BASE_SUITE), architecture="arm64")
    archive.update()
    kernel = archive.depends(_KERNEL)
    wanted = [f"{name}/{_TEE_SUITE}" for name in _TEE_PACKAGES]
    wanted += [f"{name}/{_BASE_SUITE}" for name in ("busybox-static", kernel)]
    with folder_atomic(packages) as fresh:
        archive.download(wanted, fresh)
        archive.source(f"arm-trusted-firmware/{_BASE_SUITE}", fresh)
    return f"downloaded {len(wanted)} packages and TF-A's source"


def _package(folder: Path, name: str) -> Path:
    return next(iter(sorted((folder / "packages").glob(f"{name}_*.deb"))))


def _unpack(folder: Path) -> str:
    root = folder / "arm64"
    if not root.is_dir():
        with folder_atomic(root) as fresh:
            for name in (*_TEE_PACKAGES, "busybox-static"):
                run(["dpkg-deb", "-x", str(_package(folder, name)), str(fresh)], what=name)
            _unpack_kernel(_package(folder, "linux-image-*"), fresh)
    return f"in {root}"


def _unpack_kernel(package: Path, target: Path) -> None:
    """Take the kernel and the few modules out of a package of some hundred megabytes."""
    wanted = {f"{name}.ko": f"modules/{name}.ko" for name in _MODULES}
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            name = Path(member.name).name
            place = "vmlinuz" if name.startswith("vmlinuz-") else wanted.get(name)
            content = archive.extractfile(member) if place is not None and member.isfile() else None
            if place is not None and content is not None:
                write_atomic(target / place, content.read())


def _firmware(folder: Path) -> str:
    firmware = folder / "firmware.bin"
    if not firmware.exists():
        with tempfile.TemporaryDirectory(dir=folder) as name:
            write_atomic(firmware, _build_firmware(folder, Path(name)))
    return f"{firmware.stat().st_size >> 10} KiB"


def _build_firmware(folder: Path, work: Path) -> bytes:
    """Build TF-A with OP-TEE as its payload for the secure world, and a jump to the kernel as the one for the other."""
    description = next(iter(sorted((folder / "packages").glob("arm-trusted-firmware_*.dsc"))))
    run(["dpkg-source", "--no-check", "-x", str(description), "tf-a"], what="TF-A's source", cwd=work)
    jump = work / "bl33.bin"
    _assemble(SOURCES / "guest/bl33.S", jump)
    payload = folder / "arm64/usr/lib/optee" / PLATFORM
    arguments = {
        "CROSS_COMPILE": CROSS_COMPILE,
        "PLAT": "qemu",
        "SPD": "opteed",
        "BL32": payload / "tee-header_v2.bin",
        "BL32_EXTRA1": payload / "tee-pager_v2.bin",
        "BL32_EXTRA2": payload / "tee-pageable_v2.bin",
        "BL32_RAM_LOCATION": "tdram",
        "QEMU_USE_GIC_DRIVER": "QEMU_GICV3",
        "BL33": jump,
        "DEBUG": "0",
    }
    # The linker of Debian 12 warns of what TF-A does on purpose, and TF-A takes warnings for errors.
    make = ["env", "TF_LDFLAGS=--no-warn-rwx-segments", "make", f"-j{len(os.sched_getaffinity(0))}"]
    make += [f"{name}={value}" for name, value in arguments.items()]
    run([*make, "all", "fip"], what="TF-A", cwd=work / "tf-a")
    built = work / "tf-a/build/qemu/release"
    return (built / "bl1.bin").read_bytes().ljust(_FIP_OFFSET, b"\0") + (built / "fip.bin").read_bytes()


def _assemble(source: Path, binary: Path) -> None:
    linked = binary.with_suffix(".elf")
    options = ["-nostdlib", "-static", "-Wl,--build-id=none", f"-Wl,-Ttext={_BL33_ADDRESS:#x}"]
    run([f"{CROSS_COMPILE}gcc", *options, "-o", str(linked), str(source)], what="BL33")
    run([f"{CROSS_COMPILE}objcopy", "-O", "binary", str(linked), str(binary)], what="BL33")


def _guest(folder: Path) -> str:
    record = folder / "machine.json"
    key = guest_key()
    if not record.exists() or json.loads(record.read_text(encoding="utf-8"))["guest"] != key:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            write_atomic(folder / "initrd.gz", _build_initrd(folder / "arm64", Path(name)))
        shutil.copyfile(folder / "arm64/vmlinuz", folder / "vmlinuz")
        (folder / "applications").mkdir(exist_ok=True)
        found = {
            "guest": key,
            "firmware_sha256": sha256_file(folder / "firmware.bin"),
            "optee_version": _package(folder, "optee-os").name.split("_")[1],
        }
        write_atomic(record, json.dumps(found, indent=1).encode())
    return f"OP-TEE {json.loads(record.read_text(encoding='utf-8'))['optee_version']}, ready"


def _build_initrd(arm64: Path, root: Path) -> bytes:
    """Return the guest's file system: busybox, the supplicant, the agent, their libraries and four kernel modules."""
    libraries = arm64 / "usr" / _LIBRARIES
    placed = {
        "bin/busybox": next(path for path in (arm64 / "bin/busybox", arm64 / "usr/bin/busybox") if path.exists()),
        "sbin/tee-supplicant": arm64 / "usr/sbin/tee-supplicant",
        "lib/ld-linux-aarch64.so.1": libraries / "ld-linux-aarch64.so.1",
        **{f"{_LIBRARIES}/{name}": libraries / name for name in ("libc.so.6", "libteec.so.2")},
        **{f"lib/modules/{name}.ko": arm64 / f"modules/{name}.ko" for name in _MODULES},
        "init": SOURCES / "guest/init",
    }
    for name in ("dev", "proc", "sys", "tmp"):
        (root / name).mkdir()
    for name, source in placed.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755)
    compiler = [f"{CROSS_COMPILE}gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(root / "sbin/agent")]
    paths = [f"-I{arm64}/usr/include", f"-L{libraries}", "-lteec", f"-Wl,-rpath-link,{libraries}"]
    run([*compiler, str(SOURCES / "guest/agent.c"), *paths], what="the guest's agent")
    names = "\0".join(sorted(str(path.relative_to(root)) for path in root.rglob("*"))).encode()
    pack = ["cpio", "-o", "-0", "-H", "newc", "--quiet", "--owner=0:0"]
    packed = subprocess.run(pack, input=names, cwd=root, check=True, stdout=subprocess.PIPE)
    return gzip.compress(packed.stdout, compresslevel=1)


_STEPS: tuple[tuple[str, Callable[[Path], str]], ...] = (
    ("packages of this machine", _host_packages),
    ("packages for the guest", _guest_packages),
    ("unpacked", _unpack),
    ("firmware (TF-A with OP-TEE)", _firmware),
    ("guest", _guest),
)
