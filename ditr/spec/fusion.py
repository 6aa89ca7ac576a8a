"""The fusion of a spec: the built-in parts, and whatever parts a project or an installed package adds to them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, Literal, Optional, Self

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, PydanticSerializationError

from ditr.errors import DitrError
from ditr.spec.explain import PYDANTICS
from ditr.spec.fusion_part import DECODER_STRIDES, FusionPart, Scale, Sizes
from ditr.spec.fusion_table import NamedPart, installed, named_parts, wrong_name
from ditr.spec.numbers import NonNegative, Probability, Width
from ditr.spec.part import Part


class InjectionSpec(FusionPart):
    """Multi-scale fusion: 2D features pooled to voxels of each decoder stride, projected and added there."""

    scales: Annotated[tuple[Scale, ...], Field(min_length=1, strict=False)] = DECODER_STRIDES
    """Strides that receive 2D features: those of the decoder, and 16, the bottleneck before it."""
    target: Literal["up", "skip"] = "up"
    """The branch that is added to before the concatenation: the up-sampled one or the encoder's skip. At stride 16
    there is one branch only."""
    pooling: Literal["max", "mean"] = "max"
    """How voxels of a coarser stride combine their children's features; voxels without a valid point take no part."""
    order: Literal["pool_then_project", "project_then_pool"] = "pool_then_project"
    """Whether the projection acts on the pooled features of each stride or on those of stride 1, before pooling."""
    missing: Literal["zero"] = "zero"
    """What a voxel without any valid point receives: nothing."""
    projection: Literal["linear", "linear_bn_gelu"] = "linear"
    """What brings the features to the branch's channels."""
    init: Literal["zero", "random"] = "zero"
    """zero starts as the 3D-only model exactly; random starts the projection as a fresh layer."""

    @property
    def starts_as_nothing(self) -> bool:
        return self.init == "zero"

    def build(self, sizes: Sizes) -> Any:
        return import_module("ditr.model.injection").Injection(self, sizes=sizes)


class BiFusionSpec(FusionPart):
    """Single-scale fusion: a learned gate between each point's 2D and 3D feature, back onto the 3D feature."""

    gate: Literal["lite"] = "lite"
    """Which gate; lite is an MLP on the two normalised features and gives one weight a point."""
    width: Width = 256
    """Channels in which the two features meet."""
    dropout: Probability = 0.1
    """Dropout in the heads and the gate."""
    balance_weight: NonNegative = 0.0
    """Weight of (mean gate - balance_target)^2 in the loss."""
    balance_target: Probability = 0.4
    """Mean gate that the balance term pulls towards."""

    def build(self, sizes: Sizes) -> Any:
        return import_module("ditr.model.bifusion").BiFusion(self, sizes=sizes)


class StemSpec(FusionPart):
    """Early fusion: 2D features of stride 1, projected and added to the stem's output, as ESAM's FF does."""

    projection: Literal["linear", "linear_bn_gelu"] = "linear"
    """What brings the features to the stem's channels."""
    init: Literal["zero", "random"] = "zero"
    """zero starts as the 3D-only model exactly; random starts the projection as a fresh layer."""

    @property
    def starts_as_nothing(self) -> bool:
        return self.init == "zero"

    def build(self, sizes: Sizes) -> Any:
        return import_module("ditr.model.injection").StemFusion(self, sizes=sizes)


class FusionSpec(Part):
    """What of the 2D features enters the 3D model; nothing here is the 3D-only baseline.

    Besides the built-in parts it may have those that the project or an installed package names (docs/your_fusion.md).
    """

    model_config = ConfigDict(extra="allow")

    injection: InjectionSpec | None = None
    bifusion: BiFusionSpec | None = None
    stem: StemSpec | None = None

    @property
    def parts(self) -> dict[str, FusionPart]:
        """The parts that are there, by name; empty for the 3D-only baseline.

        Modules are built and act in this order: the built-in ones, then the others by name, however they were written.
        """
        built_in = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: part for name, part in built_in.items() if part is not None} | self.own_parts

    @property
    def own_parts(self) -> dict[str, FusionPart]:
        """Those that are not built in."""
        return dict(sorted((self.model_extra or {}).items()))

    @classmethod
    def known_keys(cls) -> tuple[str, ...]:
        return (*super().known_keys(), *_named(cls))

    @classmethod
    def field_of(cls, key: str) -> FieldInfo | None:
        """Of a part that cannot be loaded, which is a mistake of its own, without a type."""
        if (own := _named(cls).get(key)) is None:
            return super().field_of(key)
        try:
            annotation: Any = Optional[own.load()]  # noqa: UP045 - built at run time
        except DitrError:
            annotation = object
        return FieldInfo(annotation=annotation, default=None)

    @classmethod
    def refusal(cls, name: str) -> str:
        """Why a project can get no part of this name; empty if it can."""
        return wrong_name(name, taken=_taken(cls)) or installed(name)

    @model_validator(mode="wrap")
    @classmethod
    def _with_own_parts(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, Mapping):
            return handler(given)
        built_in = {name: value for name, value in given.items() if name in cls.model_fields}
        named = _named(cls) if given else {}  # whose own mistakes are told to all that have a fusion
        own: dict[str, FusionPart] = {}
        mistakes: list[InitErrorDetails] = []
        for name, value in given.items():
            if name in built_in:
                continue
            try:
                own |= _own_part(named.get(name), name, value)
            except ValidationError as error:
                mistakes += _at(error, name)
        try:
            fusion = handler(built_in | own)
        except ValidationError as error:
            mistakes += _at(error)
        if mistakes:
            raise ValidationError.from_exception_data(cls.__name__, mistakes)
        return fusion

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        fields = handler.resolve_ref_schema(schema)
        for name, own in _named(cls).items():
            of_part = handler(own.load().__pydantic_core_schema__)
            fields["properties"][name] = {"anyOf": [of_part, {"type": "null"}], "default": None}
        fields["additionalProperties"] = False
        return schema


def _named(spec: type[FusionSpec]) -> Mapping[str, NamedPart]:
    return named_parts(taken=_taken(spec))


def _taken(spec: type[FusionSpec]) -> tuple[str, ...]:
    return (*spec.model_fields, *dir(spec))


def _own_part(named: NamedPart | None, name: str, value: Any) -> dict[str, FusionPart]:
    """Under its name; nothing for null, which switches it off.

    Raises
    ------
    ValidationError: there is no part of this name, it cannot be loaded, or the value is not of it.
    """
    if isinstance(value, FusionPart):
        return {name: value}
    if named is None:
        raise _mistake("extra_forbidden", value)
    if value is None:
        return {}
    try:
        part = named.load().model_validate(value)
        part.model_dump_json()  # as records and keys hold it
        return {name: part}
    except PydanticSerializationError as error:
        raise _mistake(PydanticCustomError("fusion_part", "{what}", {"what": str(error)}), value) from None
    except DitrError as error:
        raise _mistake(
            PydanticCustomError("fusion_part", "{what}", {"what": f"{error.where}: {error.what}"}), value
        ) from None


def _mistake(kind: str | PydanticCustomError, value: Any) -> ValidationError:
    return ValidationError.from_exception_data("fusion", [InitErrorDetails(type=kind, input=value)])


def _at(error: ValidationError, *above: str) -> list[InitErrorDetails]:
    """Its mistakes once more, below these keys."""
    return [
        InitErrorDetails(
            type=one["type"] if one["type"] in PYDANTICS else PydanticCustomError(one["type"], "{msg}", {**one}),
            loc=(*above, *one["loc"]),
            input=one["input"],
            ctx=one.get("ctx", {}),
        )
        for one in error.errors(include_url=False)
    ]
