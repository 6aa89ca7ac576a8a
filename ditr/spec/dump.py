"""A spec or an entry as YAML that says everything, defaults included."""

from __future__ import annotations

import io

from ruamel.yaml import YAML

from ditr import layouts
from ditr.spec.file_schema import SCHEMA
from ditr.spec.models import Spec
from ditr.spec.part import Part


def to_yaml(part: Part) -> str:
    """A resolved spec, with the number of its layout, or an entry; loading it gives an equal one."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None  # lists and maps without maps in one line
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    yaml.allow_unicode = False  # raw, some characters (U+0085) would read back as line ends
    text = io.StringIO()
    number = {SCHEMA: layouts.SPEC} if isinstance(part, Spec) else {}
    yaml.dump(number | part.model_dump(mode="json"), text)
    return text.getvalue()
