"""What all that the report reads has in common.

The rooms that write these files own their schemas. The report keeps readers of its own, so that it depends on files
and not on code; fields that it does not show are ignored, fields that it shows are required.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Provenance = Literal["hardware", "emulated", "simulated"]


class Record(BaseModel):
    """Something read from a file: strict about what the page shows, blind to the rest."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
