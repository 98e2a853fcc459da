"""Mirror images fill up what the attacker may learn from."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some
from leakage_cases import SMALL, photo_tiles

from siniantrust.leakage import Data
from siniantrust.leakage._mirror import with_mirror_images
from siniantrust.leakage._split import split_items


def _data() -> Data:
    numbers = np.arange(200)
    others = {"z": np.arange(200.0)[:, None]}
    return Data(photo_tiles(200), numbers, "x", others=others, attribute=numbers, transcript=numbers.astype(str))


@settings(deadline=None)  # the first call reads the photographs
@given(most=some.integers(1, 400), seed=some.integers(0, 20))
def test_only_the_attackers_items_are_mirrored(most: int, seed: int) -> None:
    """A mirror image is that of an item the attacker has, with its labels and text; nothing else changes."""
    data = _data()
    split = split_items(len(data), SMALL, seed=seed)
    more, wider = with_mirror_images(data, split, most=most)
    np.testing.assert_array_equal(wider.heldout, split.heldout)
    np.testing.assert_array_equal(wider.validation, split.validation)
    np.testing.assert_array_equal(more.inputs[: len(data)], data.inputs)
    added = wider.attacker[wider.attacker >= len(data)]
    assert len(added) == max(0, min(len(split.attacker), most - len(split.attacker)))
    assert more.labels is not None
    assert more.attribute is not None
    assert more.transcript is not None
    for number in added:
        original = int(more.labels[number])
        assert original in split.attacker
        np.testing.assert_array_equal(more.inputs[number], data.inputs[original][..., ::-1])
        assert more.others["z"][number] == more.attribute[number] == original
        assert more.transcript[number] == str(original)


@given(most=some.integers(128, 300))
def test_half_of_the_rows_is_half_of_the_items(most: int) -> None:
    """Mirror images follow their originals, spread evenly: a smaller attacker has fewer of both."""
    data = _data()
    split = split_items(len(data), SMALL, seed=0)
    more, wider = with_mirror_images(data, split, most=most)
    assert more.labels is not None
    half = more.labels[wider.attacker[: len(wider.attacker) // 2]]
    assert abs(len(set(half.tolist())) - len(split.attacker) / 2) <= 2


def test_what_is_no_picture_stays_as_it_is() -> None:
    """Rows of numbers and sounds have no mirror image."""
    rows = Data(np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32), None, "x")
    sounds = Data(
        np.random.default_rng(0).normal(size=(200, 1, 4000)).astype(np.float32), None, "x", sample_rate_hz=8000
    )
    for data in (rows, sounds):
        split = split_items(len(data), SMALL, seed=0)
        assert with_mirror_images(data, split, most=400) == (data, split)
