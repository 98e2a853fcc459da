"""The session's enclave: who launches it, releases keys to it, and ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from siniantrust.bundle import Bundle, KeyStore, TrustedPart, admit
from siniantrust.errors import EnclaveError, SinianError
from siniantrust.planner import Policy
from siniantrust.trust import BrokeredEnclave, Enclave, EnclaveInfo, EnclaveSpec, launch
from siniantrust.trust.attestation import reference_from_table

_LONGEST_WAIT_S = 3600.0


@dataclass(eq=False, slots=True)
class _Live:
    """An enclave that holds keys, since when, how many calls it is in, and when the last of them ended."""

    enclave: Enclave
    since_s: float
    used_s: float
    calls: int = 0


class EnclaveHolder:
    """Launches, attests and loads an enclave when it is first needed, and again after it was lost or ended.

    The limits of the policy hold for every provider: an enclave in which no call was for ``idle_s`` is ended, and its
    keys and parts with it; one that is older than ``lifetime_s`` takes no more calls, and is ended after those in it.
    """

    def __init__(self, bundle: Bundle, keystore: KeyStore) -> None:
        policy = bundle.plan.policy
        self._spec = enclave_spec(policy)
        self._idle_s, self._lifetime_s = policy.enclave.idle_s, policy.enclave.lifetime_s
        self._bundle = bundle
        self._keystore = keystore
        self._changed = threading.Condition()
        self._live: _Live | None = None
        self._watcher: threading.Thread | None = None
        self._is_closed = False

    @contextmanager
    def use(self) -> Iterator[Enclave]:
        """Yield the enclave for a call, launching one if there is none; it is not ended for its limits meanwhile.

        Raises:
            TrustError: if it cannot be launched, does not attest, or refuses a part; or a newer bundle was opened
                before.
            SinianError: if the session was closed: a request that was on its way then launches nothing.
        """
        with self._changed:
            live = self._current()
            live.calls += 1
        try:
            yield live.enclave
        finally:
            with self._changed:
                live.calls -= 1
                live.used_s = time.monotonic()
                if not live.enclave.alive and live is self._live:  # whatever ended it, an interrupted call included
                    self._live = None
                is_over = live is not self._live and (not live.calls or not live.enclave.alive)
            if is_over:
                live.enclave.close()

    def info(self) -> EnclaveInfo:
        """Describe the enclave."""
        with self.use() as enclave:
            return enclave.info()

    def close(self) -> None:
        """End the enclave for good; calling it again does nothing."""
        with self._changed:
            self._is_closed = True
            live, self._live = self._live, None
            self._changed.notify_all()
        if live is not None:
            live.enclave.close()

    def _current(self) -> _Live:
        """Return the enclave that takes calls now."""
        if self._is_closed:
            raise SinianError("enclave: its session is closed; open the bundle again")
        if self._live is not None and self._left_s(self._live) <= 0:
            self._retire(self._live)
        if self._live is None:
            enclave = self._launch()
            now_s = time.monotonic()
            self._live = _Live(enclave, since_s=now_s, used_s=now_s)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="sinian-enclave-limits", daemon=True)
                self._watcher.start()
            self._changed.notify_all()
        return self._live

    def _left_s(self, live: _Live) -> float:
        """Return for how long an enclave may go on from now."""
        end_s = live.since_s + self._lifetime_s
        if not live.calls:
            end_s = min(end_s, live.used_s + self._idle_s)
        return end_s - time.monotonic()

    def _retire(self, live: _Live) -> None:
        """Give it no more calls; the last one in it ends it."""
        self._live = None
        if not live.calls:
            live.enclave.close()

    def _watch(self) -> None:
        """End what reaches a limit, until the session is closed."""
        with self._changed:
            while not self._is_closed:
                live = self._live
                if live is None:
                    self._changed.wait()
                elif self._left_s(live) <= 0:
                    self._retire(live)
                else:  # calls that begin or end meanwhile make it longer, never shorter than the idle limit
                    self._changed.wait(min(self._left_s(live), self._idle_s, _LONGEST_WAIT_S))

    def _launch(self) -> Enclave:
        enclave = launch(self._spec)
        try:
            parts = [part for part in self._bundle.parts if isinstance(part, TrustedPart)]
            if self._bundle.plan.policy.enclave.keys == "broker":
                _load_brokered(enclave, parts, self._bundle.id)
            else:
                # Keys leave the key store only here: the enclave has attested, and older bundles are refused for good.
                manifest, tpm = self._bundle.manifest, self._bundle.plan.policy.enclave.rollback_tpm
                admit(self._keystore, lineage=manifest.lineage, version=manifest.version, tpm=tpm)
                key = self._keystore.weight_key(self._bundle.id)
                for part in parts:
                    enclave.load(part.name, part.skeleton, part.sealed, key, context=part.context)
        except BaseException:
            enclave.close()
            raise
        return enclave


def _load_brokered(enclave: Enclave, parts: Sequence[TrustedPart], bundle_id: str) -> None:
    if not isinstance(enclave, BrokeredEnclave):
        raise EnclaveError(
            f"{enclave.info().provider} enclave: it has no key broker; write in the policy: "
            '[enclave] keys = "keystore", or another provider'
        )
    for part in parts:
        enclave.load_brokered(part.name, part.skeleton, part.sealed, bundle_id, context=part.context)


def enclave_spec(policy: Policy) -> EnclaveSpec:
    """Return which enclave the policy asks for."""
    wanted = policy.enclave
    return EnclaveSpec(
        provider=wanted.provider,
        memory_bytes=wanted.memory_bytes,
        threads=wanted.threads,
        accept=wanted.accept,
        allow_missing=wanted.allow_missing,
        address=wanted.address,
        folder=None if wanted.folder is None else Path(wanted.folder),
        reference=None
        if wanted.reference is None
        else reference_from_table(wanted.reference.model_dump(), origin="of the policy"),
    )
