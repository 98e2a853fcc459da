"""Multi-tensor cuts: convex prefixes inside a segment between two single-tensor cuts.

A prefix that is no single-tensor cut ends strictly inside one segment: it holds all nodes before the last single cut d
that it contains, and none behind the next one, since those descend from a value that it does not contain. Segments can
therefore be searched one by one. In each, the frontiers of two topological orders (as given; smallest values first,
which finishes shape arithmetic and short branches early) give prefixes at once, spread over the segment's depth; a
breadth-first search then moves single nodes across the edge, through prefixes with at most ``_SLACK`` tensors more than
asked for. Small segments are so covered completely; large ones until the cap or the budget ends the search.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from siniantrust.graph._flow import Flow

_SLACK = 2
_STATES_PER_CUT = 32
# A value that the whole net reads (an attention mask) has readers far behind the edge; the next ones are the first.
_WIDEST_STEP = 64


@dataclass(frozen=True, slots=True)
class Prefix:
    """A convex prefix inside a segment: the segment's nodes in it (a bit each) and the values that cross its edge."""

    mask: int
    values: frozenset[int]


@dataclass
class Budget:
    """How many prefixes the search may still look at, over all segments."""

    states: int

    def spend(self) -> bool:
        """Take one state; False when none is left."""
        self.states -= 1
        return self.states >= 0


def search_budget(cap: int) -> Budget:
    """Return the budget that belongs to a cap on the number of cuts."""
    return Budget(_STATES_PER_CUT * cap)


class Segment:
    """The nodes between two single-tensor cuts. ``entry`` holds the values that cross its beginning."""

    def __init__(self, flow: Flow, nodes: Sequence[int], entry: Sequence[int], *, final: bool) -> None:
        self.flow = flow
        self.nodes = nodes
        self._final = final
        self._place = {node: place for place, node in enumerate(nodes)}
        self._start = Prefix(0, frozenset(entry))
        self._needs = [
            sum(1 << self._place[flow.producer[value]] for value in flow.reads[node] if self._inner(value))
            for node in nodes
        ]
        touched = {value for node in nodes for value in (*flow.reads[node], *flow.makes[node])}
        self._readers = {
            value: sum(1 << self._place[reader] for reader in flow.readers[value] if reader in self._place)
            for value in touched
        }

    def prefixes(self, max_tensors: int, budget: Budget) -> Iterator[Prefix]:
        """Yield each prefix with 2 to ``max_tensors`` crossing values once; stops early when ``budget`` is spent."""
        whole = (1 << len(self.nodes)) - 1
        queue = deque(self._seeds(max_tensors + _SLACK))
        seen = {prefix.mask for prefix in queue}
        while queue:
            prefix = queue.popleft()
            if not budget.spend():
                return
            proper = prefix.mask != 0 and not (self._final and prefix.mask == whole)
            if proper and 1 < len(prefix.values) <= max_tensors and self._legal(prefix):
                yield prefix
            for neighbour in self._neighbours(prefix):
                if neighbour.mask not in seen and len(neighbour.values) <= max_tensors + _SLACK:
                    seen.add(neighbour.mask)
                    queue.append(neighbour)

    def _inner(self, value: int) -> bool:
        return self.flow.producer[value] in self._place

    def _legal(self, prefix: Prefix) -> bool:
        """Return whether only values of known shape cross, and no model input does."""
        flow = self.flow
        return all(value >= flow.inputs and flow.size_bytes[value] is not None for value in prefix.values)

    def _seeds(self, widest: int) -> list[Prefix]:
        """Return the narrow prefixes of two topological orders, each order's spread over the depth."""
        found: dict[int, Prefix] = {self._start.mask: self._start}
        for order in (range(len(self.nodes)), self._smallest_first()):
            prefix = self._start
            narrow: list[Prefix] = []
            for place in order:
                prefix = self._with(prefix, place)
                if len(prefix.values) <= widest:
                    narrow.append(prefix)
            for index in spread(len(narrow)):
                found.setdefault(narrow[index].mask, narrow[index])
        return list(found.values())

    def _smallest_first(self) -> Iterator[int]:
        missing = [needs.bit_count() for needs in self._needs]
        ready = [(self._made_bytes(place), place) for place, count in enumerate(missing) if not count]
        heapq.heapify(ready)
        while ready:
            _, place = heapq.heappop(ready)
            yield place
            followers = {follower for value in self.flow.makes[self.nodes[place]] for follower in self._follow(value)}
            for follower in followers:
                missing[follower] = missing[follower] - 1
                if not missing[follower]:
                    heapq.heappush(ready, (self._made_bytes(follower), follower))

    def _made_bytes(self, place: int) -> int:
        return sum(self.flow.size_bytes[value] or 0 for value in self.flow.makes[self.nodes[place]])

    def _follow(self, value: int) -> list[int]:
        return [self._place[reader] for reader in self.flow.readers[value] if reader in self._place]

    def _with(self, prefix: Prefix, place: int) -> Prefix:
        """Return ``prefix`` with one more node, all of whose sources it holds."""
        flow, node = self.flow, self.nodes[place]
        mask = prefix.mask | 1 << place
        values = set(prefix.values)
        for value in flow.reads[node]:
            if not self._readers[value] & ~mask and not flow.is_output[value]:
                values.discard(value)
        values.update(flow.makes[node])
        return Prefix(mask, frozenset(values))

    def _without(self, prefix: Prefix, place: int) -> Prefix:
        """Return ``prefix`` without one of its last nodes."""
        flow, node = self.flow, self.nodes[place]
        mask = prefix.mask & ~(1 << place)
        values = set(prefix.values).difference(flow.makes[node])
        values.update(value for value in flow.reads[node] if value in self._start.values or self._inner(value))
        return Prefix(mask, frozenset(values))

    def _neighbours(self, prefix: Prefix) -> Iterator[Prefix]:
        """Yield the prefixes that differ by one node, among those next to the edge."""
        mask = prefix.mask
        unread = 0
        for value in prefix.values:
            unread |= self._readers.get(value, 0) & ~mask
        for _ in range(_WIDEST_STEP):
            if not unread:
                break
            place = (unread & -unread).bit_length() - 1
            unread &= unread - 1
            if not self._needs[place] & ~mask:
                yield self._with(prefix, place)
        for place in sorted({self._place[self.flow.producer[v]] for v in prefix.values if self._inner(v)}):
            if not any(self._readers[value] & mask for value in self.flow.makes[self.nodes[place]]):
                yield self._without(prefix, place)


def spread(count: int) -> list[int]:
    """Return 0 .. count-1 in an order whose every beginning is spread out evenly (van der Corput 1935, base 2)."""
    bits = max(count - 1, 0).bit_length()
    keyed = sorted((int(format(index, f"0{bits}b")[::-1], 2), index) for index in range(count)) if bits else []
    return [index for _, index in keyed] if keyed else list(range(count))
