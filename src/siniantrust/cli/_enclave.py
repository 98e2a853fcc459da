"""Commands of the enclave's side: enclave serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siniantrust.cli._options import Attester, Endorsements
from siniantrust.cli._show import show_line
from siniantrust.errors import SinianError

if TYPE_CHECKING:
    from siniantrust.trust import attestation

enclave_app = typer.Typer(
    name="enclave",
    help="Run parts inside a trusted execution environment.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@enclave_app.callback()
def _group() -> None:
    """Keep ``serve`` a command of its own name, though it is the only one."""


@enclave_app.command()
def serve(
    *,
    attester: Attester,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 picks a free one.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads that a part computes with.")] = 1,
    broker: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Key broker to fetch keys from; with --broker-key.")
    ] = None,
    broker_key: Annotated[
        str | None, typer.Option(metavar="SHA256", help="The broker's key, as `sinian keys serve` prints it.")
    ] = None,
    provision: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=KEY", help="Give Gramine the broker's key KEY for files of key_name NAME."),
    ] = None,
    endorsement: Endorsements = None,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions at the same time.")] = 16,
    idle_s: Annotated[float, typer.Option(min=0.001, help="A session silent for so many seconds ends.")] = 600.0,
    lifetime_s: Annotated[float, typer.Option(min=0.001, help="A session ends after so many seconds.")] = 43200.0,
) -> None:
    """Serve parts over TLS whose key the platform's evidence vouches for; run it inside the TEE."""
    from siniantrust.trust.broker import BrokerClient
    from siniantrust.trust.service import EnclaveService
    from siniantrust.trust.tls import Limits, parse_address

    if (broker is None) != (broker_key is None):
        raise SinianError("enclave serve: --broker and --broker-key go together: where it is, and whose word counts")
    made = open_endorsed(attester, endorsement)
    keys = None
    if broker is not None and broker_key is not None:
        keys = partial(BrokerClient, made, parse_address(broker), pin=broker_key)
        keys()  # a library that is missing is missed now
    if provision:
        _provision(provision, None if keys is None else keys().fetch)
    service = EnclaveService(
        made,
        parse_address(listen),
        limits=Limits(sessions=sessions, idle_s=idle_s, lifetime_s=lifetime_s),
        threads=threads,
        keys=keys,
    )
    show_line(f"enclave service at {service.address} with {made.kind} evidence; stop with Ctrl-C")
    try:
        service.run()
    finally:
        service.close()


def _provision(wanted: Sequence[str], fetch: Callable[[str], bytes] | None) -> None:
    """Write keys of the broker to Gramine's pseudo-files."""
    from siniantrust.trust.attestation.attesters.gramine import GramineAttester

    if fetch is None:
        raise SinianError("enclave serve: --provision takes keys from a broker; say which with --broker, --broker-key")
    gramine = GramineAttester()
    for name, key_id in _pairs("--provision NAME=KEY", wanted):
        gramine.provision(name, fetch(key_id))


def _pairs(form: str, given: Sequence[str]) -> list[tuple[str, str]]:
    """Split options of the form ``NAME=VALUE``.

    Raises:
        SinianError: for one of another form.
    """
    pairs = []
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            raise SinianError(f"{text}: expected {form}")
        pairs.append((name, value))
    return pairs


def open_endorsed(name: str, endorsements: Sequence[str] | None) -> attestation.Attester:
    """Open an attester that adds the endorsements given as ``NAME=FILE``.

    Raises:
        SinianError: for one of another form.
    """
    from siniantrust.trust.attestation.attesters import EndorsedAttester, open_attester

    attester = open_attester(name)
    pairs = _pairs("--endorsement NAME=FILE", endorsements or ())
    added = {label: Path(path).read_bytes() for label, path in pairs}
    return EndorsedAttester(attester, added) if added else attester
