"""A backend's options: every one named and typed, an unknown one refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from siniantrust.errors import DeviceError
from siniantrust.odla._device import DeviceSpec

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one device, read with the type that the backend expects.

    Values come from TOML files (typed) and from command lines (strings), so that strings are converted.
    """

    spec: DeviceSpec

    def text(self, name: str, default: str) -> str:
        """Return the option ``name`` as a string, or ``default`` when it is not given."""
        value = self.spec.options.get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def integer(self, name: str, default: int, *, minimum: int) -> int:
        """Return the option ``name`` as an integer of at least ``minimum``."""
        value = self.spec.options.get(name, default)
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            raise self._wrong(name, "an integer", value) from None
        if isinstance(number, bool) or not isinstance(number, int) or number < minimum:
            raise self._wrong(name, f"an integer of at least {minimum}", value)
        return number

    def amount(self, name: str, default: float) -> float:
        """Return the option ``name`` as a number that is not negative."""
        value = self.spec.options.get(name, default)
        try:
            number = float(value)
        except ValueError:
            raise self._wrong(name, "a number", value) from None
        if isinstance(value, bool) or not 0 <= number < float("inf"):
            raise self._wrong(name, "a number of at least 0", value)
        return number

    def seconds(self, name: str, default: float) -> float:
        """Return the option ``name`` as a positive number of seconds."""
        value = self.spec.options.get(name, default)
        try:
            number = float(value)
        except ValueError:
            raise self._wrong(name, "a number of seconds", value) from None
        if isinstance(value, bool) or not 0 < number < float("inf"):
            raise self._wrong(name, "a positive number of seconds", value)
        return number

    def flag(self, name: str, *, default: bool) -> bool:
        """Return the option ``name`` as a boolean; the strings true/false, yes/no, on/off and 1/0 count as one."""
        value = self.spec.options.get(name, default)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        raise self._wrong(name, "true or false", value)

    def with_prefix(self, prefix: str) -> dict[str, str]:
        """Return the options whose name starts with ``prefix``, without it, as strings."""
        return {
            name.removeprefix(prefix): str(value)
            for name, value in self.spec.options.items()
            if name.startswith(prefix)
        }

    def _wrong(self, name: str, expected: str, found: object) -> DeviceError:
        return DeviceError(f"device {self.spec.name!r}: option {name!r} must be {expected}, found {found!r}")


def read_options(spec: DeviceSpec, known: Mapping[str, str], *, prefix: str | tuple[str, ...] = ()) -> Options:
    """Check the names of ``spec``'s options.

    Args:
        spec: The device.
        known: The options that the backend has, with a few words on each.
        prefix: Options that start with it (with one of them) are passed on to what is below, which judges them itself.

    Raises:
        DeviceError: for an option that is not known; the message lists the known ones.
    """
    prefixes = (prefix,) if isinstance(prefix, str) else prefix
    for name in spec.options:
        if name not in known and not name.startswith(prefixes):
            listed = ", ".join([*sorted(known), *(f"{each}*" for each in prefixes)])
            raise DeviceError(f"device {spec.name!r}: backend {spec.backend!r} has no option {name!r}; it has {listed}")
    return Options(spec)
