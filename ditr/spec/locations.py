"""Where pydantic's error locations lie in the models: the type there, the type above and the field's description."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ditr.spec.part import Part
from ditr.spec.problems import PathSteps

DISCRIMINATORS = ("kind", "gate")
"""Keys that name which part of a union is meant."""


@dataclass(frozen=True)
class Location:
    """Where an error is: the path without pydantic's tags, the type there and the type above."""

    path: PathSteps
    annotation: Any
    annotation_above: Any
    field: FieldInfo | None


def locate(annotation: Any, loc: tuple[str | int, ...]) -> Location:
    """The place of ``loc``, in which pydantic puts the kind of a union's member as a step of its own."""
    location = Location((), bare(annotation), None, None)
    for step in loc:
        if step == "[key]":
            continue
        here = location.annotation
        members = [one for one in get_args(here) if is_model(one)] if is_union(here) else []
        if members:
            chosen = next((one for one in members if step in tags(one)), None)
            location = Location(location.path, chosen, location.annotation_above, location.field)
            continue
        below, info = _step_into(here, step)
        location = Location((*location.path, step), bare(below), here, info)
    return location


def _step_into(annotation: Any, step: str | int) -> tuple[Any, FieldInfo | None]:
    if is_model(annotation):
        info = annotation.field_of(str(step))
        return (info.annotation if info else None), info
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return arguments[1], None
    if get_origin(annotation) is tuple and isinstance(step, int):
        return arguments[0 if arguments[-1] is Ellipsis else min(step, len(arguments) - 1)], None
    return None, None


def bare(annotation: Any) -> Any:
    """Without ``Annotated`` and without an optional None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if is_union(annotation):
        members = [one for one in get_args(annotation) if one is not NoneType]
        if len(members) == 1:
            return bare(members[0])
        return Union[tuple(members)]  # noqa: UP007 - built at run time
    return annotation


def is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def is_model(annotation: Any) -> TypeGuard[type[Part]]:
    return isinstance(annotation, type) and issubclass(annotation, Part)


def tags(model: type[Part]) -> tuple[Any, ...]:
    """What the discriminator of a union's member may be."""
    key = next(key for key in DISCRIMINATORS if key in model.model_fields)
    return get_args(model.model_fields[key].annotation)


def all_paths(annotation: Any, above: str = "") -> Iterator[str]:
    """Every dotted path below a model, of all members of its unions."""
    annotation = bare(annotation)
    for model in get_args(annotation) if is_union(annotation) else (annotation,):
        if is_model(model):
            for name, info in model.model_fields.items():
                yield f"{above}{name}"
                yield from all_paths(info.annotation, f"{above}{name}.")
