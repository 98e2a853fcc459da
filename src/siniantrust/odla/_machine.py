"""What this machine is: its processor and its memory."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> tuple[str, int]:
    """Return the processor's model and the machine's memory in bytes."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    models = _cpu_lines("model name")
    return (models[0] if models else platform.processor() or platform.machine()), memory_bytes


def instruction_set() -> str:
    """Return the architecture and its vector extensions: what compiled code may rest on."""
    words = " ".join([*_cpu_lines("flags"), *_cpu_lines("Features")]).split()
    wide = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "asimd", "asimdhp", "sve", "i8mm", "bf16")
    return "+".join([platform.machine(), *(name for name in wide if name in words)])


def _cpu_lines(key: str) -> list[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.partition(":")[0].strip() == key][:1]
