"""What the report reads of explanation.json."""

from __future__ import annotations

from typing import Literal

from siniantrust.report._inputs import Record, Seconds


class NodeRunRead(Record):
    """Consecutive nodes with the same answers; seconds are sums."""

    first: str
    last: str
    count: int
    operators: dict[str, int]
    part: str
    device: str
    latency_s: Seconds
    elsewhere_s: dict[str, Seconds]
    refused: dict[str, str]
    label: str
    reasons: tuple[str, ...]


class ExplanationRead(Record):
    """Why every node is where it is."""

    schema_version: Literal[1]
    plan_sha256: str
    runs: tuple[NodeRunRead, ...]
