"""Running the command line, and files for it to work on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from runtime_deployments import Deployment, deploy, images_proto, missing_protections

from siniantrust.cli import main
from siniantrust.graph import load_model
from siniantrust.planner import save_plan

# What starts the command line in a process of its own, before its arguments.
START = ("-c", "import sys; from siniantrust.cli import main; sys.exit(main())")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def run_here(capsys: pytest.CaptureFixture[str], arguments: Iterable[object]) -> Outcome:
    """Run the command line in this process."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return Outcome(code, said.out, said.err)


@dataclass(frozen=True)
class Workshop:
    """Files that work together."""

    deployment: Deployment
    model: Path
    data: Path
    policy: Path
    plan: Path
    keys: Path

    @property
    def audit(self) -> Path:
        """The audit's folder."""
        return self.deployment.audit_folder

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.deployment.path


def make_workshop(folder: Path) -> Workshop:
    """Build and write everything below ``folder``."""
    onnx.save(images_proto(), folder / "model.onnx")
    deployment = deploy(load_model(folder / "model.onnx"), folder, cut="r0")
    generator = np.random.default_rng(0)
    pictures = generator.random((60, 3, 12, 12), dtype=np.float32)
    labels = deployment.expected({"image": pictures})["scores"].argmax(axis=1)
    np.savez(folder / "data.npz", inputs=pictures, labels=labels, heldout=np.arange(60) >= 40)
    save_plan(deployment.plan, folder / "plan.json")
    return Workshop(
        deployment=deployment,
        model=folder / "model.onnx",
        data=folder / "data.npz",
        policy=write_policy(folder / "policy.toml"),
        plan=folder / "plan.json",
        keys=deployment.keystore.path,
    )


def write_policy(path: Path, *, more: str = "", leakage: str = "", objective: str = "") -> Path:
    """Write a policy that this host satisfies, with more lines at the top or in its sections."""
    missing = ", ".join(f'"{name}"' for name in missing_protections())
    path.write_text(
        f"""{more}
[enclave]
accept = ["simulated"]
allow_missing = [{missing}]
memory_bytes = 268435456

[[device]]
name = "cloud"
options = {{ threads = 1 }}

[leakage]
{leakage}

[objective]
{objective}
""",
        encoding="utf-8",
    )
    return path
