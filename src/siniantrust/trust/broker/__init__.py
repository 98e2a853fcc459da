"""The key broker: keys are released to enclaves whose evidence matches, and every decision is logged."""

from siniantrust.trust.broker._broker import KeyBroker, RefusedError
from siniantrust.trust.broker._client import BrokerClient
from siniantrust.trust.broker._log import DecisionLog, Entry
from siniantrust.trust.broker._server import BrokerServer
from siniantrust.trust.broker._store import KeyEntry, Store

__all__ = [
    "BrokerClient",
    "BrokerServer",
    "DecisionLog",
    "Entry",
    "KeyBroker",
    "KeyEntry",
    "RefusedError",
    "Store",
]
