"""The secret of the platform that simulated enclaves run on: a file, which whoever owns the machine can read.

Hardware burns such a secret in. With this one, sealing shows that the pieces fit, and keeps nothing from the host.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from siniantrust._files import write_atomic
from siniantrust.errors import EnclaveError

_SECRET_BYTES = 32


def simulated_platform_secret() -> bytes:
    """Return the secret (32 bytes), which is made at first use, in the user's data (XDG Base Directory Specification).

    Raises:
        EnclaveError: if it cannot be read or written, or is none.
    """
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    path = Path(base) / "siniantrust" / "simulated-platform"
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as fault:
        raise EnclaveError(f"simulated platform {path}: its secret cannot be kept there ({fault.strerror})") from None
    if len(secret) != _SECRET_BYTES:
        raise EnclaveError(
            f"simulated platform {path}: expected {_SECRET_BYTES} bytes, found {len(secret)}; remove the file, and "
            "what was sealed with it is lost"
        )
    return secret


def _make(path: Path) -> None:
    """Make the secret. Of two processes that do so at once, one loses, and takes the other's."""
    mine = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_atomic(mine, secrets.token_bytes(_SECRET_BYTES), mode=0o600)
    try:
        os.link(mine, path)
    except FileExistsError:
        pass
    finally:
        mine.unlink()
