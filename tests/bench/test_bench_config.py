from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from siniantrust.bench import BenchError, load_config, parse_config

WHOLE: dict[str, Any] = {
    "run": {"seeds": 2, "attacks": ["ridge"], "screens": [], "budget": {"steps": 5}},
    "model": [{"name": "net", "path": "net.onnx", "data": "tiles"}],
    "data": [{"name": "tiles", "path": "tiles.npz"}],
    "mask": [{"name": "gaussian", "strength": [0.5, 1]}],
}


def _parse(**changed: Any) -> Any:
    return parse_config({**WHOLE, **changed}, origin="b.toml", folder=Path("/files"))


def test_a_whole_file_is_read() -> None:
    """Paths start at the file's folder, one data set needs no list, and limits stand on the preset's."""
    found = _parse()
    assert found.model[0].path == Path("/files/net.onnx")
    assert found.model[0].data == ("tiles",)
    assert found.data_path("tiles") == Path("/files/tiles.npz")
    limits = found.run.limits()
    assert (limits.seeds, limits.steps, limits.attacker_items) == (2, 5, 3600)


def test_what_is_left_out_is_all_of_it() -> None:
    """Without a word on them all attacks and screens run, at all cuts, without masks, on every model bare."""
    found = parse_config({key: WHOLE[key] for key in ("model", "data")}, origin="b.toml", folder=Path())
    assert (found.run.attacks, found.run.screens, found.run.max_cuts) == ("all", "all", None)
    assert found.run.unmasked
    assert found.run.effort == "quick"
    assert found.model[0].cuts == "all"
    assert found.mask == ()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"speed": 1}, "speed: Extra inputs are not permitted"),
        ({"run": {"effort": "lazy"}}, "run.effort: Input should be 'quick' or 'standard'"),
        ({"run": {"seeds": 0}}, "run.seeds: Input should be greater than or equal to 1"),
        ({"run": {"attacks": ["magic"]}}, "run: attack 'magic' is unknown; there are"),
        ({"run": {"screens": ["magic"]}}, "run: screen 'magic' is unknown; there are"),
        ({"run": {"attacks": []}}, "run.attacks: expected at least one attack"),
        ({"run": {"budget": {"stepps": 3}}}, "run.budget.stepps: unknown limit; there are attacker_items"),
        ({"run": {"budget": {"seeds": 3}}}, "run.budget.seeds: unknown limit"),
        ({"run": {"budget": {"steps": 2.5}}}, "run.budget.steps: expected a whole number of at least 0, found 2.5"),
        ({"run": {"budget": {"tolerance": -1}}}, "run.budget.tolerance: expected a number of at least 0, found -1"),
        ({"model": []}, "model: Tuple should have at least 1 item"),
        ({"model": [{**WHOLE["model"][0], "name": "../up"}]}, "model.0.name: String should match pattern"),
        ({"model": [{**WHOLE["model"][0], "data": "sounds"}]}, "model.0.data: 'sounds' is no data set here"),
        ({"model": WHOLE["model"] * 2}, "model: the name 'net' stands there twice"),
        ({"data": WHOLE["data"] * 2}, "data: the name 'tiles' stands there twice"),
        ({"mask": [{"name": "cloak"}]}, "mask.0.name: 'cloak' is unknown; there are"),
        ({"mask": [{"name": "gaussian", "strength": [-1]}]}, "mask.0.strength.0: Input should be greater than"),
        ({"run": {"unmasked": False}}, "model.0.cuts: without unmasked audits, name the cuts to mask"),
    ],
)
def test_a_wrong_field_is_named(changed: dict[str, Any], message: str) -> None:
    """An error is one line with the file, the field, what was expected and what there is."""
    with pytest.raises(BenchError) as caught:
        _parse(**changed)
    assert str(caught.value).startswith(f"bench b.toml: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"run = ", "not a TOML file"), (b"\xff", "not a TOML file"), (None, "cannot be read")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    """Neither a missing file nor one in another format ends in a traceback."""
    path = tmp_path / "b.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BenchError, match=message):
        load_config(path)
