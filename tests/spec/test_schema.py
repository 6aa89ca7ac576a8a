from __future__ import annotations

import json
from typing import Any

from ditr import paths
from ditr.spec.models import Spec
from ditr.spec.schema import json_schema, schema_text


def test_the_committed_schema_is_of_these_models() -> None:
    committed = (paths.registry_dirs()[0] / "spec.schema.json").read_text()
    assert committed == schema_text(), "stale: run `ditr schema > registry/spec.schema.json`"


def test_a_file_may_extend_and_leave_everything_to_its_parent() -> None:
    schema = json_schema()
    assert schema["properties"]["extends"]["type"] == "string"
    assert set(schema["properties"]) == {"schema", "extends", *Spec.model_fields, "matrix"}
    assert not list(_with_key(schema, "required"))
    assert not list(_with_key(schema, "oneOf"))  # a union without its kind may fit several members


def test_editors_flag_unknown_keys_and_show_what_a_field_is() -> None:
    schema = json_schema()
    objects = [schema, *schema["$defs"].values()]
    assert all(one["additionalProperties"] is False for one in objects)
    assert "Strides that receive 2D" in schema["$defs"]["InjectionSpec"]["properties"]["scales"]["description"]
    json.dumps(schema, allow_nan=False)


def _with_key(node: Any, key: str) -> Any:
    if isinstance(node, dict):
        if key in node:
            yield node
        for child in node.values():
            yield from _with_key(child, key)
    elif isinstance(node, list):
        for child in node:
            yield from _with_key(child, key)
