"""Every number of a spec and of a registry entry has bounds, and a slip beyond them is one message at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ditr.spec.entries import CheckpointEntry, DatasetEntry, FeatureEntry
from ditr.spec.load import load_spec
from ditr.spec.models import Spec
from ditr.spec.problems import Problem, SpecErrors
from ditr.spec.registry import Registry

HERE = Path(__file__).parent
REGISTRY = Registry(HERE / "registry")
SPEC = TypeAdapter(Spec).json_schema()


def numbers(schema: dict[str, Any], node: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Dotted path, a YAML text of all that holds the number with a hole for it, and what the schema says of it."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    if node.get("type") in ("integer", "number") and not {"enum", "const"} & node.keys():
        yield path, "HOLE", node
    for member in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from numbers(schema, member, path)
    kind = {key: one["const"] for key, one in node.get("properties", {}).items() if "const" in one}
    for key, below in node.get("properties", {}).items():
        for where, text, leaf in numbers(schema, below, f"{path}.{key}".lstrip(".")):
            around = json.dumps({**kind, key: "HOLE"}) if path else '"HOLE"'
            yield where, around.replace('"HOLE"', text), leaf
    if isinstance(node.get("additionalProperties"), dict):
        yield from numbers(schema, node["additionalProperties"], f"{path}.key")
    items = node.get("prefixItems") or ([node["items"]] * node.get("minItems", 1) if "items" in node else [])
    for at in range(len(items)):
        for where, text, leaf in numbers(schema, items[at], f"{path}[{at}]"):
            yield where, f"[{', '.join([text] * len(items))}]", leaf


@pytest.mark.parametrize("annotation", [Spec, DatasetEntry, FeatureEntry, CheckpointEntry], ids="sdfc")
def test_every_number_has_bounds_on_both_sides(annotation: Any) -> None:
    schema = TypeAdapter(annotation).json_schema()
    found = list(numbers(schema, schema))
    for path, _, leaf in found:
        assert {"minimum", "exclusiveMinimum"} & leaf.keys(), path
        assert {"maximum", "exclusiveMaximum"} & leaf.keys(), path
    assert len(found) > 3, "the walk finds numbers"


FIELDS = {path.partition("[")[0]: (text, leaf["type"]) for path, text, leaf in numbers(SPEC, SPEC)}
"""Lists whole: each item gets the value."""


def test_the_walk_finds_numbers_wherever_they_are() -> None:
    some = {"seeds", "schedule.epochs", "schedule.decay.power", "features.weights.seed", "features.input_size"}
    some |= {"model.backbone.planes", "fusion.bifusion.dropout", "augmentation.elastic.magnitude", "checks.steps"}
    assert some <= FIELDS.keys()
    assert len(FIELDS) > 60


@pytest.mark.parametrize("path", FIELDS)
def test_a_number_beyond_all_bounds_is_one_message_at_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, kind = FIELDS[path]
    huge = "1" + 30 * "0" if kind == "integer" else "1e300"
    not_finite = "must be a whole number" if kind == "integer" else "must be a finite number"
    must = {
        huge: ("must be at most", "must be below"),
        f"-{huge}": ("must be at least", "must be above"),
        ".nan": (not_finite,),
        ".inf": (not_finite,),
    }
    for value, words in must.items():
        began = time.process_time()
        found = mistakes(f"{path.partition('.')[0]}={text.replace('HOLE', value)}", monkeypatch)
        assert time.process_time() - began < 1
        assert {problem.path.partition("[")[0] for problem in found} == {path}
        assert all(problem.what.startswith(words) for problem in found), found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=[9223372036854775808]", "seeds[0]: must be at most 9223372036854775807; is 9223372036854775808"),
        ("schedule.epochs=1e30", "schedule.epochs: must be a whole number; is 1e30"),
        ("model.decoder.width=1000000000", "model.decoder.width: must be at most 4096; is 1000000000"),
        ("schedule.learning_rate=1e300", "schedule.learning_rate: must be at most 100; is 1e300"),
        ("model.voxel_size_m=1e-300", "model.voxel_size_m: must be at least 0.001; is 1e-300"),
    ],
)
def test_the_message_says_the_bound(override: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [str(problem) for problem in mistakes(override, monkeypatch)] == [f"--set {override}: {message}"]


def mistakes(override: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Problem, ...]:
    monkeypatch.chdir(HERE)
    with pytest.raises(SpecErrors) as raised:
        load_spec(Path("good/bifusion.yaml"), registry=REGISTRY, overrides=[override])
    return raised.value.problems
