"""Ways to spoil a file: at a place of its JSON tree, or in its bytes."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just([]), st.just({}), st.just([{}])
)


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
    return junk


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
