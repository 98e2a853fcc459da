"""Commands about this machine: devices, doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from siniantrust.cli._options import Json
from siniantrust.cli._show import show_json, show_line, show_table


def devices(*, as_json: Json = False) -> None:
    """List the backends, and the devices that they find here."""
    from siniantrust import odla

    backends, found = odla.available_backends(), odla.list_devices()
    if as_json:
        show_json({"backends": backends, "devices": [asdict(each) for each in found]})
        return
    show_table(("backend", "state"), backends.items())
    show_table(("device", "backend", "description"), ((each.name, each.backend, each.description) for each in found))


Setup = Annotated[
    str | None, typer.Option("--setup", metavar="PROVIDER", help="Fetch and build what this enclave provider needs.")
]


def doctor(*, as_json: Json = False, setup: Setup = None) -> None:
    """Say which enclave providers and attesters this machine has, what it lacks, and what follows.

    Exit code 1 if the process enclave would lack a protection here.
    """
    from siniantrust import trust

    if setup is not None:
        trust.set_up(setup, show_line)
        return
    checks = trust.host_checks()
    offers = trust.provider_offers(checks)
    wanted = {protection.name for protection in trust.PROTECTIONS} | {"process"}
    missing = [check.name for check in checks if not check.ok and check.name in wanted]
    if as_json:
        show_json(
            {
                "providers": [asdict(offer) for offer in offers],
                "checks": [asdict(check) for check in checks],
                "missing_protections": missing,
            }
        )
    else:
        show_table(
            ("provider", "role", "provenance", "here", "detail", "how to get it"),
            (
                (
                    each.name,
                    each.role,
                    each.provenance or "its evidence's",
                    "yes" if each.here else "NO",
                    each.detail,
                    each.remedy,
                )
                for each in offers
            ),
        )
        show_table(
            ("check", "found", "detail", "what follows"),
            (
                (each.name, "yes" if each.ok else "NO", each.detail, "" if each.ok else each.consequence)
                for each in checks
            ),
        )
        verdict = f"lacks {', '.join(missing)}" if missing else "has every protection"
        show_line(f"a process enclave {verdict} here; it is simulated either way, and hides nothing from root")
    if missing:
        raise typer.Exit(1)
