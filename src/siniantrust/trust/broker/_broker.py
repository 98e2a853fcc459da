"""The key broker: appraises, decides, writes the decision down, and only then releases."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from siniantrust.errors import AttestationError, TrustError
from siniantrust.trust.attestation._rely import rely_on
from siniantrust.trust.broker._jwe import encrypt_key
from siniantrust.trust.broker._log import Entry
from siniantrust.trust.broker._request import GivingUp, KeyRequest
from siniantrust.trust.broker._state import State
from siniantrust.trust.broker._store import KeyEntry, Store

_SHA256 = re.compile(r"[0-9a-f]{64}")


class RefusedError(TrustError):
    """The broker refuses; the asker is told the number of the log's entry, and the log says why."""


class KeyBroker:
    """The decisions over a store. Several threads, and several processes, may use one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._state = State()

    def add(self, entry: KeyEntry) -> None:
        """Keep a new key.

        Raises:
            TrustError: if its name is taken or was revoked, or a newer version of its lineage was already released.
        """
        with self.store.log.exclusive():
            state = self._follow()
            if state.is_key_revoked(entry.key_id):
                raise TrustError(f"key {entry.key_id}: it was revoked; give another name")
            if entry.version < state.counter(entry.lineage):
                raise TrustError(
                    f"key {entry.key_id}: expected a version of {entry.lineage} from {state.counter(entry.lineage)}, "
                    f"which was released already, found {entry.version}"
                )
            if self.store.get(entry.key_id) is not None:
                raise TrustError(f"key {entry.key_id}: it is there already and never replaced; give another name")
            self.store.log.append("add", key_id=entry.key_id, lineage=entry.lineage, version=entry.version)
            self.store.put(entry)

    def revoke_key(self, key_id: str, *, why: str) -> None:
        """Release a key to nobody any more, for ever.

        Raises:
            TrustError: if there is none of that name.
        """
        with self.store.log.exclusive():
            if self.store.get(key_id) is None:
                raise TrustError(f"key {key_id[:100]!r}: there is none; there are: {', '.join(self.store.key_ids())}")
            self.store.log.append("revoke-key", key_id=key_id, detail=why)

    def revoke_enclave(self, enclave: str, *, why: str) -> None:
        """Release no key any more to the enclave whose key has this SHA-256.

        Raises:
            TrustError: if it is none.
        """
        if not _SHA256.fullmatch(enclave):
            raise TrustError(f"enclave {enclave[:80]!r}: expected the SHA-256 of its key, 64 hexadecimal digits")
        with self.store.log.exclusive():
            self.store.log.append("revoke-enclave", enclave=enclave, detail=why)

    def state(self) -> State:
        """Return what follows from the log as it is now."""
        with self.store.log.exclusive():
            return self._follow()

    def release(self, request: KeyRequest, *, nonce: bytes, now: datetime | None = None) -> str:
        """Decide on a request; return the key as a JWE to the asker's key.

        The counter of the key's lineage is on the disk, in the log, before the key leaves.

        Args:
            request: who asks for what.
            nonce: what this broker gave to the asker, for this request only.
            now: the time of the appraisal; None for now.

        Raises:
            RefusedError: if it is not released.
        """
        binding = request.binding(nonce, self.store.identity.spki)
        if not request.is_signed(binding):
            # Not told apart in the log by its enclave: anyone could name another one's key.
            raise self._refused(request.key_id, "", "it is not signed by the key that it names")
        with self.store.log.exclusive():
            state = self._follow()
            entry = self.store.get(request.key_id)
            try:
                released = _check(entry, request, state)
                rely_on(
                    request.evidence,
                    name=f"enclave {request.enclave[:16]}…",
                    binding=binding,
                    reference=released.reference,
                    accept=released.accept,
                    now=now or datetime.now(UTC),
                )
            except AttestationError as fault:
                refusal = self._log_refusal(request, str(fault))
                if state.holds(request.enclave, request.key_id):
                    self.store.log.append(
                        "revoke-enclave", enclave=request.enclave, detail="it was given this key and now fails"
                    )
                raise _refusal(refusal) from None
            except TrustError as fault:
                raise _refusal(self._log_refusal(request, str(fault))) from None
            answer = encrypt_key(released.key, request.recipient(), key_id=released.key_id)
            self.store.log.append(
                "release",
                key_id=released.key_id,
                enclave=request.enclave,
                lineage=released.lineage,
                version=released.version,
            )
            return answer

    def give_up(self, notice: GivingUp, *, nonce: bytes) -> None:
        """Revoke an enclave that says of itself that it failed, if it was ever given a key.

        Raises:
            RefusedError: if the enclave does not say so itself, or never had a key.
        """
        if not notice.is_signed(nonce, self.store.identity.spki):
            raise self._refused("", "", "a notice of giving up is not signed by the enclave that it names")
        with self.store.log.exclusive():
            if not self._follow().holds_any(notice.enclave):
                raise _refusal(
                    self.store.log.append("refuse", enclave=notice.enclave, detail="it has nothing to give up")
                )
            self.store.log.append("revoke-enclave", enclave=notice.enclave, detail=f"it says itself: {notice.why}")

    def refuse(self, detail: str) -> RefusedError:
        """Write down that a request could not even be read; return what to answer."""
        return self._refused("", "", detail)

    def _follow(self) -> State:
        self._state.follow(self.store.log.entries)
        return self._state

    def _refused(self, key_id: str, enclave: str, detail: str) -> RefusedError:
        with self.store.log.exclusive():
            return _refusal(self.store.log.append("refuse", key_id=_shown(key_id), enclave=enclave, detail=detail))

    def _log_refusal(self, request: KeyRequest, detail: str) -> Entry:
        return self.store.log.append("refuse", key_id=_shown(request.key_id), enclave=request.enclave, detail=detail)


def _check(entry: KeyEntry | None, request: KeyRequest, state: State) -> KeyEntry:
    """Refuse what no evidence could make good."""
    if entry is None:
        raise TrustError("there is no such key")
    if state.is_key_revoked(entry.key_id):
        raise TrustError("the key was revoked")
    if state.is_enclave_revoked(request.enclave):
        raise TrustError("the enclave was revoked")
    if entry.version < state.counter(entry.lineage):
        raise TrustError(
            f"rollback: version {entry.version} of {entry.lineage}, of which {state.counter(entry.lineage)} "
            "was released already"
        )
    return entry


def _refusal(entry: Entry) -> RefusedError:
    return RefusedError(f"the key broker refuses; entry {entry.number} of its log says why (sinian keys log)")


def _shown(key_id: str) -> str:
    return key_id[:100]
