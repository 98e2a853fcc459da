"""How a program in an enclave and the host that relays for it talk: names of tensors beside the model's own.

What begins a request are the model's inputs. The enclave answers with masked entries and the names below, or with the
model's outputs where nothing is left to ask for. The host adds the corrections that it keeps to what a device answered,
and gives the sums back with the query's number.
"""

from __future__ import annotations

RESERVED = "exact."
QUERY = "exact.query"
"""uint64 (1,): which request it is; the enclave keeps its state."""
EXCHANGE = "exact.exchange"
"""uint64 (1,): which exchange it waits for."""
ITEMS = "exact.items"
"""uint64 (items,): the number of each item's pads."""
REFUSED = "exact.refused"
"""uint8: why a device's answer was refused, UTF-8; the same request may go to another device."""
COMPUTE = "exact.compute"
"""uint8 (1,): compute the exchange in the enclave instead."""
DROP = "exact.drop"
"""uint8 (1,): forget the request."""
PREPARE = "exact.prepare"
"""uint64 (1,): prepare so many items."""
STOCK = "exact.stock"
"""uint8 (items, bytes): sealed corrections, one after the other in the order of layers; ``PREPARED`` names the rows.

The enclave gives them when it prepared them, of all exchanges; the host gives one exchange's back where an answer was
refused, to have it said who is to blame."""
PREPARED = "exact.prepared"
"""uint64 (items,): the number of each row's pads."""
STATUS = "exact.status"
"""uint8: JSON of what the trusted side did so far, and how many items are in stock."""
