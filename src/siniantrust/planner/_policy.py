"""The policy: what the owner of the data demands, as a TOML file in which every field is documented here."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from siniantrust.errors import AttestationError, PolicyError
from siniantrust.leakage import Metric
from siniantrust.trust import Label, Provenance, ThreatModel
from siniantrust.trust.attestation import load_reference, reference_to_table


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReferencePolicy(_Section):
    """``[enclave.reference]``: what the evidence of an enclave that runs elsewhere is compared with."""

    kind: str = Field(description="the kind of evidence that is expected")
    accepted: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="for each claim, the values that are accepted"
    )
    at_least: dict[str, int] = Field(
        default_factory=dict, description="for each claim that counts, the lowest value that is accepted"
    )
    anchors: dict[str, str] = Field(
        default_factory=dict, description="roots of trust of one's own: base64 of the DER of certificates or keys"
    )


class EnclavePolicy(_Section):
    """``[enclave]``: the trusted side."""

    provider: str = Field(default="process", description="the enclave provider to launch")
    accept: tuple[Provenance, ...] = Field(
        default=(Provenance.HARDWARE,), description="where the enclave's claims may come from"
    )
    memory_bytes: int = Field(default=512 << 20, gt=0, description="the enclave's memory limit")
    threads: int = Field(default=1, ge=1, description="threads that the trusted part computes with")
    allow_missing: tuple[str, ...] = Field(
        default=(), description="protections (names as in `sinian doctor`) that the enclave may do without"
    )
    address: str | None = Field(
        default=None, description="HOST:PORT of an enclave that runs elsewhere, for `cvm`, `gramine` and `service`"
    )
    folder: str | None = Field(
        default=None, description="folder of a signed manifest from which `gramine` starts the enclave"
    )
    keys: Literal["keystore", "broker"] = Field(
        default="keystore",
        description="who gives the enclave the weights' key: this side's key store, or the enclave's own key broker",
    )
    idle_s: float = Field(
        default=600.0,
        gt=0,
        description="after so long without a request, the enclave and its keys are gone; the next one attests anew",
    )
    lifetime_s: float = Field(default=43200.0, gt=0, description="the same after so long in any case")
    rollback_tpm: str | None = Field(
        default=None,
        description="TPM, such as `/dev/tpmrm0`, whose counter refuses older bundles; with keys of the key store",
    )
    reference: ReferencePolicy | None = Field(
        default=None,
        description="what the evidence of such an enclave is compared with; "
        "in the file also the name of a TOML file beside it",
    )


class DevicePolicy(_Section):
    """``[[device]]``: one untrusted device."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", description="how plans and reports call it")
    backend: str = Field(default="onnxruntime", description="the ODLA backend that drives it")
    options: dict[str, str | int | float | bool] = Field(default_factory=dict, description="the backend's options")
    clearance: Label = Field(default=Label.OBSCURED, description="the most private label that it may see")
    memory_bytes: int | None = Field(
        default=None, gt=0, description="what a part on it may hold, weights and activations; no limit if left out"
    )


class LeakagePolicy(_Section):
    """``[leakage]``: how much an attacker may get from what leaves the enclave, prior-corrected, 0 to 1."""

    max: dict[Metric, Annotated[float, Field(le=1)]] = Field(
        default={"ssim": 0.2, "reidentification": 0.1},
        min_length=1,
        description="bound per metric, held against the upper 95 % bound of the best attack",
    )
    require_converged: bool = Field(default=True, description="refuse a cut whose attacks could still improve")


class ObjectivePolicy(_Section):
    """``[objective]``: what the solver minimises among the plans that the rest allows."""

    minimise: Literal["latency", "period"] = Field(
        default="latency", description="latency of one request, or the slowest stage's period (throughput)"
    )
    allow_all_trusted: bool = Field(
        default=True, description="offer the whole model in the enclave when it is best or nothing else is allowed"
    )


class ServingPolicy(_Section):
    """``[serving]``: what a session does when a device fails or slows down."""

    takeover: tuple[str, ...] = Field(
        default=(), description="devices that an untrusted part may move to by itself, the first choice first"
    )
    retries: int = Field(
        default=3, ge=0, description="how often a request that a device failed is run again on another device"
    )
    call_timeout_s: float | None = Field(
        default=None, gt=0, description="a call that takes longer is given up, and its device counts as lost"
    )
    slow_factor: float | None = Field(
        default=None,
        gt=1,
        description="move when a device's latest 8 calls take longer, in the median, than this times its first 16",
    )


class MaskingPolicy(_Section):
    """``[masking]``: how layers run under one-time pads, where the plan has some (`sinian plan --mask`)."""

    stock: int = Field(default=8, ge=0, le=4096, description="items that pads are prepared for ahead, in idle time")
    when_dry: Literal["wait", "refuse"] = Field(
        default="wait", description="what an item gets that finds no prepared pads: made on the spot, or an error"
    )
    when_no_device: Literal["compute", "refuse"] = Field(
        default="compute",
        description="when no device is left that answers rightly: the enclave computes the layers, or an error",
    )
    not_offerable: Literal["keep", "refuse"] = Field(
        default="keep",
        description="what is done with a product or convolution that cannot be padded: it stays inside, or no plan",
    )
    soundness_bits: int = Field(
        default=40, ge=1, le=160, description="a wrong answer passes with a probability of at most 2 to minus this"
    )


class Policy(_Section):
    """A whole policy file."""

    threat_model: ThreatModel = Field(
        default=ThreatModel.INPUT_PRIVACY, description="output-privacy also brings the last layers back to the enclave"
    )
    public_inputs: tuple[str, ...] = Field(default=(), description="inputs of the model that anyone may see")
    enclave: EnclavePolicy = Field(default_factory=EnclavePolicy)
    device: tuple[DevicePolicy, ...] = Field(default=(), description="untrusted devices, in any order")
    leakage: LeakagePolicy = Field(default_factory=LeakagePolicy)
    objective: ObjectivePolicy = Field(default_factory=ObjectivePolicy)
    serving: ServingPolicy = Field(default_factory=ServingPolicy)
    masking: MaskingPolicy = Field(default_factory=MaskingPolicy)


def load_policy(path: Path) -> Policy:
    """Read and check a policy file; reference values that it names by a file are read in.

    Raises:
        PolicyError: if it cannot be read, is not TOML, or a field is unknown, missing or out of range.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(f"policy {path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, endless digits, brackets without end
        raise PolicyError(f"policy {path}: not a TOML file ({_one_line(str(error))})") from None
    _read_reference(raw, path)
    return parse_policy(raw, origin=str(path))


def _read_reference(raw: dict[str, Any], path: Path) -> None:
    """Put the reference values in place of the name of their file, so that a plan carries them."""
    enclave = raw.get("enclave")
    if not isinstance(enclave, dict) or not isinstance(enclave.get("reference"), str):
        return
    try:
        enclave["reference"] = reference_to_table(load_reference(path.parent / enclave["reference"]).values)
    except AttestationError as error:
        raise PolicyError(f"policy {path}: enclave.reference: {error}") from None


def parse_policy(raw: dict[str, object], *, origin: str) -> Policy:
    """Check a policy that was already read; ``origin`` names it in errors.

    Raises:
        PolicyError: if a field is unknown or out of range, two devices share a name, a device that is to take over
            is not there, or two counters were to refuse older bundles.
    """
    try:
        policy = Policy.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"]) or "the file"
        raise PolicyError(_one_line(f"policy {origin}: {place}: {first['msg']}")) from None
    if policy.enclave.keys == "broker" and policy.enclave.rollback_tpm is not None:
        raise PolicyError(
            f"policy {origin}: enclave.rollback_tpm: the key broker counts versions itself; leave it out, or write "
            '[enclave] keys = "keystore"'
        )
    names = [device.name for device in policy.device]
    if "enclave" in names or len(set(names)) != len(names):
        raise PolicyError(f"policy {origin}: device: names must differ, and 'enclave' is reserved; found {names}")
    takeover = policy.serving.takeover
    if len(set(takeover)) != len(takeover) or not set(takeover) <= set(names):
        raise PolicyError(
            f"policy {origin}: serving.takeover: expected devices of this policy, each once; "
            f"found {list(takeover)}, the devices are {names}"
        )
    return policy


def _one_line(text: str) -> str:
    return " ".join(text.split())
