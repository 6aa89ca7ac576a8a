"""What every part of a spec is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Range = Annotated[tuple[PositiveFloat, PositiveFloat], Field(strict=False)]


class Part(BaseModel):
    """Base of every spec part: unknown keys are errors, values are never coerced, nothing changes after load."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
