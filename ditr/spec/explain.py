"""pydantic's errors in the words of a spec: what is wrong, what is allowed, what was probably meant, and where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import MaxLen, MinLen
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from ditr.spec.locations import Location, all_paths, bare, is_model, is_union, locate, tags
from ditr.spec.numbers import MOST_CLASS_ID
from ditr.spec.problems import Problem, ProblemKind, allowed, did_you_mean, dotted
from ditr.spec.yaml_text import Value

PYDANTICS = frozenset(get_args(ErrorType))
"""Kinds of errors that pydantic itself knows."""
_DIGEST = "64 hexadecimal digits in lower case"
_HINTS: Mapping[str, str] = {
    "name": "lower-case letters, digits and underscores, and start with a letter or digit",
    "fusion.injection.scales": "a stride of the decoder, 8, 4, 2 or 1, or 16, the bottleneck",
    "features.input_size": "[height, width] in pixels, such as [420, 560]",
    "classes": f"a class id, 1 to {MOST_CLASS_ID}",
    "sha256": _DIGEST,
    "weights.sha256": _DIGEST,
    "features.weights.sha256": _DIGEST,
}
"""What is allowed, in better words than the type has."""


def check(value: Value, annotation: Any) -> tuple[Any, list[Problem]]:
    """``value`` as the type says, or None and every mistake in it."""
    try:
        return TypeAdapter(annotation).validate_python(value.plain()), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, list(dict.fromkeys(problem for one in details if (problem := explain(one, value, annotation))))


def explain(error: ErrorDetails, value: Value, annotation: Any) -> Problem | None:
    """One error of pydantic as a problem; None for those that only follow from another one."""
    place = locate(annotation, error["loc"])
    written = value.at(place.path)
    if error["type"] in ("missing", "union_tag_not_found"):
        if place.path and isinstance(place.path[-1], int):  # an item of a fixed-length list
            place = locate(annotation, error["loc"][:-1])
            written = value.nearest(place.path)
            return Problem(written.origin, dotted(place.path), _wrong_length(place, written))
        if error["type"] == "union_tag_not_found":
            return _kind_missing(error, value, place)
        above = value.nearest(place.path)
        return Problem(above.key or above.origin, dotted(place.path), _missing(place), ProblemKind.MISSING)
    written = written or value.nearest(place.path)
    if error["type"] == "extra_forbidden":
        return Problem(written.key or written.origin, dotted(place.path), _unknown_key(place, annotation))
    if error["loc"][-1:] == ("[key]",):
        keys = get_args(bare(get_args(place.annotation_above)[0]))
        hint = _HINTS.get(dotted(place.path[:-1]), "")
        what = f"a key must be {hint}" if hint else f"unknown key{allowed(str(place.path[-1]), keys)}"
        return Problem(written.key or written.origin, dotted(place.path), what)
    if error["type"] == "union_tag_invalid":
        return _kind_unknown(error, written, place)
    if error["type"] == "too_short" and _length(written) >= error["ctx"]["min_length"]:
        return None  # its items are wrong, and said to be
    return Problem(written.origin, dotted(place.path), _wrong_value(error, written, place))


def _missing(place: Location) -> str:
    description = (place.field.description or "") if place.field else ""
    if not description and is_model(place.annotation):
        description = place.annotation.__doc__ or ""
    if not description:
        return "missing"
    first = description.split("\n")[0].rstrip(".")
    return f"missing; {first[:1].lower()}{first[1:]}"


def _kind_missing(error: ErrorDetails, value: Value, place: Location) -> Problem:
    key = error["ctx"]["discriminator"].strip("'")
    above = value.nearest(place.path)
    kinds = [tag for one in get_args(place.annotation) for tag in tags(one)]
    what = f"missing; allowed: {', '.join(kinds)}"
    return Problem(above.key or above.origin, dotted((*place.path, key)), what, ProblemKind.MISSING)


def _kind_unknown(error: ErrorDetails, written: Value, place: Location) -> Problem:
    key = error["ctx"]["discriminator"].strip("'")
    kinds = [tag for one in get_args(place.annotation) for tag in tags(one)]
    chosen = written.at((key,)) or written
    what = f"unknown {key} {shown(chosen)}{allowed(chosen.text, kinds)}"
    return Problem(chosen.origin, dotted((*place.path, key)), what)


def _unknown_key(place: Location, annotation: Any) -> str:
    key = str(place.path[-1])
    keys = list(place.annotation_above.known_keys())
    what = f"unknown key{allowed(key, keys)}"
    if did_you_mean(key, keys):
        return what
    above = locate(annotation, place.path[:-1]).annotation
    for sibling in get_args(above) if is_union(above) else ():
        if key in sibling.model_fields:
            return f"{what}; '{key}' is for kind {' or '.join(tags(sibling))}"
    elsewhere = [path for path in all_paths(annotation) if path.rpartition(".")[2] == key]
    return f"unknown key; did you mean '{elsewhere[0]}'? allowed: {', '.join(keys)}" if elsewhere else what


def _wrong_value(error: ErrorDetails, written: Value, place: Location) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind not in PYDANTICS or kind == "value_error":  # a part's own validator says it
        return str(context.get("error", error["msg"]))
    is_what = f"is {shown(written)}"
    help_ = _typing_help(kind, written, place)
    hint = _HINTS.get(re.sub(r"\[\d+\]$", "", dotted(place.path)))
    if kind == "literal_error":
        return _not_one_of(get_args(place.annotation), written, hint)
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"must be {words} {_in_digits(context[key])}; {is_what}"
    if kind in ("too_short", "too_long"):
        return _wrong_length(place, written)
    if kind == "string_pattern_mismatch":
        return f"must be {hint or 'text like ' + context['pattern']}; {is_what}"
    if kind == "finite_number":
        return f"must be a finite number; {is_what}"
    if kind == "model_type":
        return f"must be a map (keys: {', '.join(place.annotation.known_keys())}){_or_null(place)}; {is_what}{help_}"
    if kind == "model_attributes_type":
        kinds = [tag for one in get_args(place.annotation) for tag in tags(one)]
        return f"must be a map with a kind ({', '.join(kinds)}){_or_null(place)}; {is_what}"
    must = (hint if kind == "tuple_type" else None) or _TYPES.get(kind, error["msg"])
    return f"must be {must}{_or_null(place)}; {is_what}{help_}"


def _not_one_of(options: tuple[Any, ...], written: Value, hint: str | None) -> str:
    names = [str(option) for option in options]
    must = hint or (f"one of {', '.join(names)}" if len(names) > 1 else names[0])
    words = all(isinstance(option, str) for option in options)
    return f"must be {must}; is {shown(written)}{did_you_mean(written.text, names) if words else ''}"


def _in_digits(bound: float) -> str:
    """A bound as a user would write it."""
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _or_null(place: Location) -> str:
    annotation = place.field.annotation if place.field else None
    return " or null" if is_union(annotation) and NoneType in get_args(annotation) else ""


_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_TYPES = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "tuple_type": "a list, such as [1, 2]",
    "dict_type": "a map of keys",
}
_EXACT = 2**53
"""Above, not every whole number is a float."""
_AS_BOOL = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def _typing_help(kind: str, written: Value, place: Location) -> str:
    """How to write what was probably meant."""
    data, text = written.data, written.text.strip()
    if data is None:
        return "" if place.field is None or place.field.is_required() else "; remove the key to get the default"
    if kind == "bool_type" and isinstance(data, str):
        word = _AS_BOOL.get(text.lower(), text.lower())
        return f"; write {word}" + (" without quotes" if written.quoted else "") if word in ("true", "false") else ""
    if kind in ("int_type", "float_type") and isinstance(data, str):
        return "; write it without quotes" if written.quoted and _is_number(text) else ""
    if kind == "int_type" and isinstance(data, float) and data.is_integer() and abs(data) < _EXACT:
        return f"; write {int(data)}"
    if kind == "string_type" and isinstance(data, bool | int | float):
        return f"; write '{text}'"
    if kind == "tuple_type" and not isinstance(data, dict) and get_args(place.annotation)[-1] is Ellipsis:
        return f"; write [{text}]"
    return ""


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text) is not None


def _wrong_length(place: Location, written: Value) -> str:
    arguments = get_args(place.annotation)
    metadata = place.field.metadata if place.field else ()
    least = next((one.min_length for one in metadata if isinstance(one, MinLen)), None)
    most = next((one.max_length for one in metadata if isinstance(one, MaxLen)), None)
    if get_origin(place.annotation) is tuple and arguments[-1] is not Ellipsis:
        least = most = len(arguments)
    count = least if most is None else most
    need = f"{'exactly' if least == most else 'at least' if most is None else 'at most'} {count}"
    what = f"must have {need} item{'' if count == 1 else 's'}; has {_length(written)}"
    if get_origin(place.annotation) is dict and get_origin(arguments[0]) is Literal:
        what += f"; allowed: {', '.join(get_args(arguments[0]))}"
    return what


def _length(written: Value) -> int:
    return len(written.data) if isinstance(written.data, dict | tuple) else 1


def shown(written: Value) -> str:
    """A value as a message shows it."""
    if isinstance(written.data, dict):
        return "a map"
    if isinstance(written.data, tuple):
        return f"a list of {len(written.data)}"
    if written.data is None:
        return "empty" if not written.text else written.text
    text = written.text if len(written.text) <= 60 else f"{written.text[:57]}..."
    return f"'{text}'" if isinstance(written.data, str) else text
