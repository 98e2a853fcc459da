"""What a bench runs: a TOML file in which every field is documented here."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from siniantrust.errors import AuditError, SinianError
from siniantrust.leakage import Budget, list_attacks, list_screens
from siniantrust.masking import list_masks


class BenchError(SinianError):
    """A bench's file is malformed, or names something that is not there."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Names = Annotated[tuple[Name, ...], Field(min_length=1), BeforeValidator(_listed)]


class RunSection(_Section):
    """``[run]``: how hard the attackers try, and which ones."""

    effort: Literal["quick", "standard"] = Field(default="quick", description="the preset of limits to start from")
    budget: dict[str, int | float] = Field(default={}, description="limits that differ from the preset's")
    seeds: int = Field(default=3, ge=1, description="runs of every attack with other random numbers")
    attacks: tuple[str, ...] | Literal["all"] = Field(default="all", description="names of attacks")
    screens: tuple[str, ...] | Literal["all"] = Field(default="all", description="names of screens")
    max_cuts: int | None = Field(default=None, ge=1, description="at most so many cuts of each model, spread evenly")
    unmasked: bool = Field(default=True, description="also audit every model without a mask")

    def limits(self) -> Budget:
        """Return the budget of every audit."""
        differing: dict[str, Any] = {**self.budget, "seeds": self.seeds}
        return replace(Budget.preset(self.effort), **differing)


class ModelSection(_Section):
    """``[[model]]``: one network."""

    name: Name = Field(description="what tables call it")
    path: Path = Field(description="ONNX file, relative to the bench's file")
    data: Names = Field(description="name of its data set, or a list of them")
    cuts: tuple[str, ...] | Literal["all"] = Field(default="all", description="ids of cuts, as `sinian inspect` says")
    private_input: str | None = Field(default=None, description="the private input of a model with several")
    dims: dict[str, Annotated[int, Field(ge=1)]] = Field(default={}, description="values of free dimensions")
    seed: int = Field(default=0, ge=0, description="of the split of its data and of everything random")


class DataSection(_Section):
    """``[[data]]``: one data set."""

    name: Name = Field(description="what tables call it")
    path: Path = Field(description=".npy or .npz file as `sinian audit` reads it, relative to the bench's file")


class MaskSection(_Section):
    """``[[mask]]``: one mask at several strengths, at every cut."""

    name: str = Field(description="name of a mask")
    strength: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] | None = Field(
        default=None, description="strengths, in the mask's own unit; else the mask's usual one"
    )

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths, of a mask that is known."""
        return self.strength or (list_masks()[self.name].usual,)


class BenchConfig(_Section):
    """A whole file."""

    run: RunSection = Field(default_factory=RunSection)
    model: tuple[ModelSection, ...] = Field(min_length=1)
    data: tuple[DataSection, ...] = Field(min_length=1)
    mask: tuple[MaskSection, ...] = ()

    def data_path(self, name: str) -> Path:
        """Return the file of the data set ``name``."""
        return next(section.path for section in self.data if section.name == name)


def load_config(path: Path) -> BenchConfig:
    """Read and check a bench's file; paths in it become relative to its folder.

    Raises:
        BenchError: if it cannot be read or is no TOML, a field is unknown, missing or out of range, or a name unknown.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"bench {path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BenchError(f"bench {path}: not a TOML file ({_one_line(str(error))})") from None
    return parse_config(raw, origin=str(path), folder=path.parent)


def parse_config(raw: dict[str, object], *, origin: str, folder: Path) -> BenchConfig:
    """Check a file that was already read; ``origin`` names it in errors, relative paths start at ``folder``.

    Raises:
        BenchError: if a field is unknown, missing or out of range, or a name is unknown.
    """
    try:
        config = BenchConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"]) or "the file"
        raise BenchError(_one_line(f"bench {origin}: {place}: {first['msg']}")) from None
    problem = next(_problems(config), None)
    if problem is not None:
        raise BenchError(f"bench {origin}: {problem}")
    return config.model_copy(
        update={
            "model": tuple(one.model_copy(update={"path": folder / one.path}) for one in config.model),
            "data": tuple(one.model_copy(update={"path": folder / one.path}) for one in config.data),
        }
    )


def _problems(config: BenchConfig) -> Iterator[str]:
    """Yield what contradicts itself or names something unknown, each with its field."""
    yield from _run_problems(config.run)
    for section in ("model", "data", "mask"):
        names = [each.name for each in getattr(config, section)]
        for name in dict.fromkeys(name for index, name in enumerate(names) if name in names[:index]):
            yield f"{section}: the name '{name}' stands there twice"
    known = [each.name for each in config.data]
    for index, model in enumerate(config.model):
        for name in model.data:
            if name not in known:
                yield f"model.{index}.data: '{name}' is no data set here; there are {', '.join(known)}"
        if not config.run.unmasked and (model.cuts == "all" or not config.mask):
            yield f"model.{index}.cuts: without unmasked audits, name the cuts to mask, and at least one mask"
    masks = list_masks()
    for index, mask in enumerate(config.mask):
        if mask.name not in masks:
            yield f"mask.{index}.name: '{mask.name}' is unknown; there are {', '.join(masks)}"


def _run_problems(run: RunSection) -> Iterator[str]:
    try:
        list_attacks(None if run.attacks == "all" else run.attacks)
        list_screens(None if run.screens == "all" else run.screens)
    except AuditError as error:
        yield f"run: {error}"
    if not run.attacks:
        yield "run.attacks: expected at least one attack, found none"
    limits = {field.name: type(field.default) for field in fields(Budget) if field.name != "seeds"} | {"threads": int}
    for name, value in run.budget.items():
        if name not in limits:
            yield f"run.budget.{name}: unknown limit; there are {', '.join(limits)}"
        elif value < 0 or (limits[name] is int and not isinstance(value, int)):
            what = "a whole number" if limits[name] is int else "a number"
            yield f"run.budget.{name}: expected {what} of at least 0, found {value}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
