"""Lowering: a part as one C file that needs no library, with its weights outside and its memory known beforehand."""

from siniantrust.lowering._lower import OPERATORS, Lowered, Slot, lower, pack, unpack, unsupported

__all__ = ["OPERATORS", "Lowered", "Slot", "lower", "pack", "unpack", "unsupported"]
