"""Ways to spoil a file: in its bytes, or at a place of the structure that it has (JSON, JOSE, PEM, lines)."""

from __future__ import annotations

import base64
import binascii
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just([]), st.just({}), st.just([{}])
)
VALUES: tuple[object, ...] = (None, True, 0, -1, 2**70, 0.5, "", "\0", "ab" * 32, "\ud800", [], [[]], {}, {"": {}})
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_JOSE_DOTS = {2, 4}


def spoil_tree(tree: Any, source: random.Random, junk: Any) -> Any:
    """Replace, drop or add something at a random place of a JSON tree."""
    if isinstance(tree, dict) and tree and source.random() < 0.85:
        key = source.choice(sorted(tree))
        if source.random() < 0.1:
            return {name: value for name, value in tree.items() if name != key}
        return {**tree, key: spoil_tree(tree[key], source, junk)}
    if isinstance(tree, list) and tree and source.random() < 0.85:
        place = source.randrange(len(tree))
        return [spoil_tree(item, source, junk) if index == place else item for index, item in enumerate(tree)]
    return junk(tree) if callable(junk) else junk


def spoil_bytes(raw: bytes, source: random.Random, junk: bytes) -> bytes:
    """Cut, flip, repeat or overwrite bytes at random places."""
    spoiled = bytearray(raw)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(spoiled) + 1)
        kind = source.randrange(4)
        if kind == 0:
            del spoiled[place:]
        elif kind == 1 and place < len(spoiled):
            spoiled[place] ^= 1 << source.randrange(8)
        elif kind == 2:
            spoiled[place:place] = spoiled[place : place + source.randint(1, 40)]
        else:
            spoiled[place : place + len(junk)] = junk
    return bytes(spoiled)


def spoil(seeds: Sequence[bytes], source: random.Random) -> bytes:
    """Return bytes from anywhere, two seeds grown together, or a seed with changes in its bytes or its structure."""
    genuine = source.choice(seeds)
    junk = source.randbytes(source.randrange(40))
    way = source.random()
    if way < 0.1:
        return junk
    if way < 0.15:
        other = source.choice(seeds)
        return genuine[: source.randrange(len(genuine) + 1)] + other[source.randrange(len(other) + 1) :]
    if way < 0.3:
        return _spoil_field(genuine, source)
    if way < 0.6 and (structured := _spoil_structure(genuine, source)) is not None:
        return structured
    return spoil_bytes(genuine, source, junk)


def _spoil_field(raw: bytes, source: random.Random) -> bytes:
    """Write an extreme number over a field of 1, 2, 4 or 8 bytes, or move or drop a stretch."""
    place = source.randrange(len(raw) + 1)
    size = source.choice((1, 2, 4, 8))
    way = source.randrange(4)
    if way < 2:
        number = source.choice(_EXTREMES) % (1 << 8 * size)
        return raw[:place] + number.to_bytes(size, source.choice(("big", "little"))) + raw[place + size :]
    stretch = source.randrange(len(raw) + 1)
    low, high = sorted((place, stretch))
    return raw[:low] + raw[high:] if way == 2 else raw[high:] + raw[low:high] + raw[:low]


def _spoil_structure(raw: bytes, source: random.Random) -> bytes | None:
    if raw.startswith(b"-----BEGIN"):
        return _spoil_list(raw.split(b"-----BEGIN")[1:], source, _spoil_pem, join=b"-----BEGIN", first=True)
    if raw.startswith(b"{") and raw.count(b"\n{") and raw.endswith(b"}\n"):  # one JSON object a line
        return _spoil_list(raw.splitlines(), source, _spoil_json, join=b"\n") + b"\n"
    if raw.startswith((b"{", b"[")):
        return _spoil_json(raw, source)
    if raw.count(b".") in _JOSE_DOTS and raw.startswith(b"eyJ"):
        return _spoil_list(raw.split(b"."), source, _spoil_base64url, join=b".")
    return None


def _spoil_list(
    items: list[bytes],
    source: random.Random,
    spoil_item: Callable[[bytes, random.Random], bytes],
    *,
    join: bytes,
    first: bool = False,
) -> bytes:
    """Drop, repeat, swap or spoil one of several pieces; ``first`` puts ``join`` before the first one too."""
    place, other = source.randrange(len(items)), source.randrange(len(items))
    way = source.randrange(6)
    if way == 0:
        del items[place]
    elif way == 1:
        items.insert(other, items[place])
    elif way == 2:
        items[place], items[other] = items[other], items[place]
    else:
        items[place] = spoil_item(items[place], source)
    return (join if first else b"") + join.join(items)


def _spoil_json(raw: bytes, source: random.Random) -> bytes:
    def change(leaf: object) -> object:
        if isinstance(leaf, str) and source.random() < 0.6:
            return _spoil_text(leaf, source)
        return source.choice(VALUES)

    return json.dumps(spoil_tree(json.loads(raw), source, change)).encode()


def _spoil_text(text: str, source: random.Random) -> str:
    """Change a text, or the bytes that it stands for if it may be base64 or hexadecimal."""
    way = source.randrange(3)
    if way == 0:
        try:
            return spoil_bytes(bytes.fromhex(text), source, source.randbytes(3)).hex()
        except ValueError:
            pass
    if way == 1:
        return _spoil_base64url(text.encode(errors="replace"), source).decode("latin-1")
    return spoil_bytes(text.encode(errors="replace"), source, b"\0").decode("latin-1")


def _spoil_base64url(text: bytes, source: random.Random) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
        spoilt = _spoil_json(raw, source) if raw.startswith(b"{") else spoil_bytes(raw, source, source.randbytes(3))
    except ValueError:  # it is no base64, or no JSON
        return spoil_bytes(text, source, b"A")
    return base64.urlsafe_b64encode(spoilt).rstrip(b"=")


def _spoil_pem(block: bytes, source: random.Random) -> bytes:
    """Change the DER in a block whose first five dashes and BEGIN were taken away."""
    head, _, rest = block.partition(b"\n")
    body, dashes, tail = rest.partition(b"-----")
    try:
        der = base64.b64decode(body)
    except binascii.Error:
        return block[1:]
    spoilt = spoil_bytes(der, source, source.randbytes(4))
    return head + b"\n" + base64.encodebytes(spoilt) + dashes + tail
