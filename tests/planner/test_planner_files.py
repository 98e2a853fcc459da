from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_models import chain_model, make_audit, make_costs, make_policy

from siniantrust.errors import PlanError, PolicyError
from siniantrust.graph import enumerate_cuts, read_device_configurations
from siniantrust.planner import (
    Policy,
    annotate,
    dump_plan,
    load_plan,
    load_policy,
    parse_plan,
    parse_policy,
    plan_schema,
    policy_reference,
    save_plan,
    solve,
)

_MODEL = chain_model(6)
_CUTS = enumerate_cuts(_MODEL)
_AUDIT = make_audit(_MODEL, _CUTS, dict.fromkeys((cut.id for cut in _CUTS.cuts), 0.1))
_PLAN = solve(_MODEL, _CUTS, policy=make_policy(), audit=_AUDIT, costs=make_costs(_MODEL))
_JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just([]), st.just({}))


def test_a_saved_plan_reads_back_as_it_was(tmp_path: Path) -> None:
    """Saving and loading loses nothing, floats included."""
    save_plan(_PLAN, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == _PLAN


def test_a_plan_without_replicas_is_still_a_plan() -> None:
    """A plan that was written before parts could have replicas, and policies a section for serving, reads the same."""
    raw = json.loads(dump_plan(_PLAN))
    del raw["policy"]["serving"]
    for part in raw["parts"]:
        del part["replicas"]
    assert parse_plan(json.dumps(raw).encode(), origin="x") == _PLAN


def test_a_policy_has_one_counter_against_old_bundles() -> None:
    """Where the key broker gives the keys, it counts versions; a TPM's counter beside it is refused."""
    parse_policy({"enclave": {"rollback_tpm": "/dev/tpmrm0"}}, origin="x")
    with pytest.raises(PolicyError, match=r"policy x: enclave.rollback_tpm: the key broker counts versions itself"):
        parse_policy({"enclave": {"rollback_tpm": "/dev/tpmrm0", "keys": "broker"}}, origin="x")


@pytest.mark.parametrize("takeover", [["clod"], ["gpu", "gpu"], ["enclave"]])
def test_a_device_that_cannot_take_over_is_refused(takeover: list[str]) -> None:
    """Only devices of the policy, each once, may be named to take over."""
    raw: dict[str, object] = {"device": [{"name": "gpu"}], "serving": {"takeover": takeover}}
    with pytest.raises(PolicyError, match=r"policy x: serving.takeover: expected devices of this policy, each once"):
        parse_policy(raw, origin="x")


def test_a_missing_plan_is_one_line(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(PlanError, match=r"plan .*none\.json: cannot be read \(No such file"):
        load_plan(tmp_path / "none.json")


def test_a_plan_of_another_schema_version_is_refused() -> None:
    """A plan that a later version wrote is not guessed at."""
    raw = json.loads(dump_plan(_PLAN)) | {"schema_version": 2}
    with pytest.raises(PlanError, match=r"plan x: schema_version: .*write it again with `sinian plan`"):
        parse_plan(json.dumps(raw).encode(), origin="x")


def _complaint(parse: Callable[[], object]) -> str:
    """Return the message of the one error that reading may raise; empty when it raises none."""
    try:
        parse()
    except (PlanError, PolicyError) as error:
        return str(error)
    return ""


def _mutate(raw: Any, source: random.Random, junk: Any) -> Any:
    """Replace, drop or add something at a random place of a JSON tree."""
    if isinstance(raw, dict) and raw and source.random() < 0.85:
        key = source.choice(sorted(raw))
        changed = dict(raw)
        if source.random() < 0.1:
            del changed[key]
        elif source.random() < 0.1:
            changed["added"] = junk
        else:
            changed[key] = _mutate(raw[key], source, junk)
        return changed
    if isinstance(raw, list) and raw and source.random() < 0.85:
        index = source.randrange(len(raw))
        return [_mutate(item, source, junk) if place == index else item for place, item in enumerate(raw)]
    return junk


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**9), junk=_JUNK)
def test_mutated_json_gives_a_plan_or_one_line(seed: int, junk: object) -> None:
    """Whatever is changed in a plan's JSON, reading it gives a plan or a PlanError of one line."""
    mutated = _mutate(json.loads(dump_plan(_PLAN)), random.Random(seed), junk)
    assert "\n" not in _complaint(lambda: parse_plan(json.dumps(mutated).encode(), origin="x"))


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 4000), junk=st.binary(max_size=20))
def test_broken_bytes_give_one_line(cut: int, junk: bytes) -> None:
    """Truncated or overwritten bytes never raise anything but PlanError."""
    raw = dump_plan(_PLAN)
    broken = raw[:cut] + junk + raw[cut + len(junk) :][: len(raw) // 2]
    assert "\n" not in _complaint(lambda: parse_plan(broken, origin="x"))


def test_deep_nesting_is_refused() -> None:
    """A bomb of brackets is no plan."""
    with pytest.raises(PlanError):
        parse_plan(b"[" * 200_000, origin="x")


def test_a_plan_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """An error of the file system is named, and nothing is left behind."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(PlanError, match="cannot be written"):
        save_plan(_PLAN, blocked / "plan.json")


def test_the_schema_describes_the_plan() -> None:
    """The published schema is JSON and knows every field."""
    schema = plan_schema()
    assert set(json.loads(dump_plan(_PLAN))) <= set(schema["properties"])  # type: ignore[call-overload]
    assert json.loads(json.dumps(schema)) == schema


def test_the_policy_reference_has_every_field() -> None:
    """Each field of the policy stands in the table with its meaning."""
    table = policy_reference()
    rows = [line.split(" | ") for line in table.splitlines()]
    assert all(len(row) == 4 for row in rows[2:])
    for section in ("enclave", "leakage", "objective"):
        for name in type(getattr(Policy(), section)).model_fields:
            assert f"| `{section}.{name}` |" in table or f"| `[{section}.{name}]` |" in table
    for name in ("name", "backend", "options", "clearance"):
        assert f"| `device.{name}` |" in table
    assert all(row[3].strip(" |") for row in rows[2:])


def test_an_unknown_policy_field_is_named(tmp_path: Path) -> None:
    """A misspelt field is an error that names file and field."""
    path = tmp_path / "policy.toml"
    path.write_text("[enclave]\nmemory = 5\n")
    with pytest.raises(PolicyError, match=r"policy\.toml: enclave\.memory: Extra inputs are not permitted"):
        load_policy(path)


@settings(max_examples=150, deadline=None)
@given(raw=st.dictionaries(st.sampled_from(sorted(Policy.model_fields)), st.recursive(_JUNK, st.lists, max_leaves=4)))
def test_malformed_policies_give_one_line(raw: dict[str, object]) -> None:
    """Whatever a policy holds, reading it gives a policy or a PolicyError."""
    assert re.fullmatch(r"|policy x: .+", _complaint(lambda: parse_policy(raw, origin="x")))


def test_the_annotated_model_says_where_each_node_runs() -> None:
    """The plan survives in the model's own device configurations."""
    placed = read_device_configurations(annotate(_MODEL, _PLAN))
    assert placed == {name: part.device for part in _PLAN.parts for name in part.nodes}


def test_annotating_another_model_is_refused() -> None:
    """A plan is written only into the model that it is for."""
    with pytest.raises(PlanError, match="made for model"):
        annotate(chain_model(5), _PLAN)
