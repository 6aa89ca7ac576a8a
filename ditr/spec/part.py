"""What every part of a spec is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Part(BaseModel):
    """Base of every spec part: unknown keys are errors, values are never coerced, nothing changes after load."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def known_keys(cls) -> tuple[str, ...]:
        """What may be written in it; a part that others may add keys to has more than its fields."""
        return tuple(cls.model_fields)

    @classmethod
    def field_of(cls, key: str) -> FieldInfo | None:
        """What stands behind a key; None for one that it has not."""
        return cls.model_fields.get(key)
