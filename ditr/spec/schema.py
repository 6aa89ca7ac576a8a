"""The JSON Schema of spec files, for completion and checks in editors."""

from __future__ import annotations

import json
from typing import Any

from ditr import layouts
from ditr.spec.file_schema import SCHEMA
from ditr.spec.matrix import MatrixSpec
from ditr.spec.models import Spec


def schema_text() -> str:
    """The schema as it is committed under registry/spec.schema.json."""
    return json.dumps(json_schema(), indent=2) + "\n"


def json_schema() -> dict[str, Any]:
    """What a spec *file* may hold: ``schema``, ``extends``, the fields of ``Spec``, none required as a parent may have
    it, and ``matrix``.
    """
    schema = Spec.model_json_schema()
    extends = {"type": "string", "description": "Path of the spec this one changes, relative to this file."}
    number = {"type": "integer", "minimum": 1, "maximum": layouts.SPEC, "description": "Layout of this file."}
    fields = schema["properties"]
    schema["properties"] = {SCHEMA: number, "extends": extends, **fields, "matrix": MatrixSpec.model_json_schema()}
    relaxed: dict[str, Any] = _relaxed(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **relaxed}


def _relaxed(node: Any) -> Any:
    """Without ``required``; of a union any member may fit, as a file may leave its kind to the parent."""
    if isinstance(node, list):
        return [_relaxed(item) for item in node]
    if not isinstance(node, dict):
        return node
    dropped = {"required", "discriminator"} if "properties" in node or "oneOf" in node else set()
    return {("anyOf" if key == "oneOf" else key): _relaxed(child) for key, child in node.items() if key not in dropped}
