"""The configuration files of edge and cloud: TOML, checked by pydantic; ``[training]`` and ``[mask]`` stand in both."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from siniantrust.collab._errors import CollabError
from siniantrust.trust import Provenance

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingSection(_Section):
    """``[training]``: what both sides must agree on."""

    model: Path = Field(description="ONNX file of the whole network, the same on both sides")
    cut: str = Field(description="id of the cut behind Part 1, as `sinian inspect` says")
    last_cut: str | None = Field(default=None, description="id of the cut before Part 3, where labels stay at the edge")
    mode: Literal["upload", "split"] = Field(description="features sent once, or activations and gradients in steps")
    arrivals: Literal["synchronous", "asynchronous"] = "synchronous"
    steps: int = Field(ge=1, description="split: steps; upload: epochs over all features")
    batch: int = Field(default=64, ge=1, description="upload: items in a step of Part 2")
    learning_rate: float = Field(default=1e-3, gt=0)
    optimiser: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="cosine: falls to 0 at the end")
    checkpoint_every: int = Field(default=50, ge=1, description="split: steps; upload: epochs")
    average_every: int = Field(default=1, ge=1, description="split: steps after which the edges' parts are averaged")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSection:
        if self.mode == "upload" and (self.last_cut is not None or self.arrivals == "asynchronous"):
            raise ValueError(
                "mode 'upload' has no last_cut, and features may arrive in any order without asking for it"
            )
        return self


class MaskSection(_Section):
    """``[mask]``: the mask on what crosses the cut, for mode ``upload``."""

    name: str = Field(description="one of `masking.list_masks`")
    strength: float = Field(ge=0)
    seed: int = Field(default=0, ge=0)
    calibration: Path = Field(description=".npy file of public inputs that the mask's strength is measured on")


class AttestationSection(_Section):
    """``[attestation]``: what this side shows, and what it asks of the other."""

    attester: str | None = Field(default=None, description="what makes evidence here")
    reference: Path | None = Field(
        default=None, description="reference file; without evidence to match, no peer is accepted"
    )


class LimitsSection(_Section):
    """``[limits]``: what one edge may do."""

    message_bytes: int = Field(default=64 << 20, ge=1024)
    requests_per_s: float = Field(default=1000.0, gt=0)
    burst: int = Field(default=1000, ge=1)
    items: int = Field(default=10_000_000, ge=1, description="items that one edge may upload")
    patience_s: float | None = Field(
        default=None, gt=0, description="how long an edge may be silent before the others go on without it; no limit"
    )


class EdgeSection(_Section):
    """``[[edge]]``: an edge that the cloud admits."""

    name: Name
    certificate: Path = Field(description="its certificate, exactly this one")


class PrivacySection(_Section):
    """``[privacy]``: what an edge does to what it sends, and what it checks of what it gets."""

    clip: float | None = Field(default=None, gt=0, description="largest L2 norm of one item's activations")
    noise: float = Field(default=0.0, ge=0, description="Gaussian noise on activations, in units of clip")
    gradient_clip: float | None = Field(
        default=None, gt=0, description="largest L2 norm of one item's gradient that goes to the cloud, with last_cut"
    )
    gradient_noise: float = Field(default=0.0, ge=0, description="Gaussian noise on it, in units of gradient_clip")
    delta: float = Field(default=1e-5, gt=0, lt=1, description="for the accounting of the noise")
    detect_hijack: bool = Field(default=True, description="stop when the cloud's gradients are not those of the task")

    @model_validator(mode="after")
    def _consistent(self) -> PrivacySection:
        if (self.noise and self.clip is None) or (self.gradient_noise and self.gradient_clip is None):
            raise ValueError("noise is in units of clip, which is missing")
        return self


class EnclaveSection(_Section):
    """``[enclave]``: an enclave that computes Part 1, for mode ``upload``."""

    provider: str = "process"
    memory_bytes: int = Field(ge=1)
    accept: tuple[Provenance, ...] = (Provenance.HARDWARE,)
    allow_missing: tuple[str, ...] = ()


class _Side(_Section):
    folder: Path = Field(description="checkpoints, features and results")
    key: Path = Field(description="private key of this side, as `sinian train keys` wrote it")
    certificate: Path
    threads: int = Field(default=1, ge=1)
    training: TrainingSection
    mask: MaskSection | None = None
    attestation: AttestationSection = AttestationSection()

    @model_validator(mode="after")
    def _mask_fits(self) -> _Side:
        if self.mask is not None and self.training.mode != "upload":
            raise ValueError("a mask belongs to mode 'upload'; mode 'split' has [privacy] noise")
        return self


class CloudConfig(_Side):
    """The cloud's whole file."""

    listen: str = Field(default="127.0.0.1:7460", description="HOST:PORT; port 0 takes a free one")
    workers: int = Field(default=1, ge=1, description="processes that train Part 2, by torchrun or Ray Train")
    ray: str | None = Field(
        default=None,
        pattern=r"^[^\s/:]+:\d+$",
        description="HOST:PORT of a Ray cluster's head, for workers there",
    )
    edge: tuple[EdgeSection, ...] = Field(min_length=1)
    limits: LimitsSection = LimitsSection()

    @model_validator(mode="after")
    def _names_differ(self) -> CloudConfig:
        names = [each.name for each in self.edge]
        if len(set(names)) != len(names):
            raise ValueError("two edges have one name")
        if self.ray and self.workers == 1 and self.training.mode == "split":
            raise ValueError("in mode 'split' the cloud is the first of the workers; with ray, ask for 2 or more")
        return self


class EdgeConfig(_Side):
    """An edge's whole file."""

    name: Name
    cloud: str = Field(description="HOST:PORT of the cloud")
    cloud_certificate: Path = Field(description="the cloud's certificate, exactly this one")
    data: Path = Field(description=".npz file: inputs, labels, and optionally heldout (true for items to test with)")
    batch: int = Field(default=32, ge=1, description="split: items in a step; upload: items in a chunk")
    give_up_s: float = Field(default=600.0, gt=0, description="how long to try to reach a cloud that does not answer")
    privacy: PrivacySection = PrivacySection()
    enclave: EnclaveSection | None = None

    @model_validator(mode="after")
    def _sections_fit(self) -> EdgeConfig:
        if self.privacy.clip is not None and self.training.mode == "upload":
            raise ValueError("[privacy] clip is for mode 'split'; what is sent once has a [mask]")
        if self.privacy.gradient_clip is not None and self.training.last_cut is None:
            raise ValueError("[privacy] gradient_clip needs last_cut: without Part 3, no gradient goes to the cloud")
        if self.enclave is not None and self.training.mode != "upload":
            raise ValueError("an enclave computes Part 1 in mode 'upload' only: it cannot train")
        return self


Config = TypeVar("Config", CloudConfig, EdgeConfig)
Section = TypeVar("Section", bound=BaseModel)


def load_config(path: Path, kind: type[Config]) -> Config:
    """Read a file of one side; relative paths in it are seen from its folder.

    Raises:
        CollabError: if it cannot be read, is no TOML, or a field is unknown, missing or out of range.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        config = kind.model_validate(raw)
    except OSError as fault:
        raise CollabError(f"configuration {path}: cannot be read ({fault.strerror})") from None
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise CollabError(" ".join(f"configuration {path}: {place}: {first['msg']}".split())) from None
    except (ValueError, RecursionError) as fault:
        raise CollabError(f"configuration {path}: not a TOML file ({' '.join(str(fault).split())})") from None
    return _rooted(config, path.parent)


def _rooted(section: Section, folder: Path) -> Section:
    """Return a section in which every path starts at ``folder``, in the sections inside it too."""
    found: dict[str, object] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            found[name] = folder / value
        elif isinstance(value, BaseModel):
            found[name] = _rooted(value, folder)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            found[name] = tuple(_rooted(each, folder) for each in value)
    return section.model_copy(update=found)
