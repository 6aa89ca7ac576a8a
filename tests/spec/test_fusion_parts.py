"""Fusion parts that are not built in: found by name in one table, checked like built-in ones, part of the identity."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from ditr.errors import DitrError
from ditr.spec import fusion_table
from ditr.spec.diff import diff
from ditr.spec.dump import to_yaml
from ditr.spec.fusion import FusionSpec
from ditr.spec.identity import fusion_parts, identity, shown_variant, spec_hash, variant
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.models import Spec
from ditr.spec.problems import SpecErrors
from ditr.spec.registry import Registry
from ditr.spec.schema import json_schema
from tests.reference.another_process import forget_code

PART = '''
from typing import Annotated
from pydantic import Field, model_validator
from ditr.spec.fusion_part import FusionPart
from {name}_help import MOST

class Mine(FusionPart):
    """A part of the test's own."""

    width: Annotated[int, Field(ge=1, le=MOST)] = 64
    """Channels of it."""
    modes: Annotated[tuple[str, ...], Field(strict=False)] = ("a",)

    @model_validator(mode="after")
    def _modes_are_unique(self):
        if len(set(self.modes)) < len(self.modes):
            raise ValueError("modes: one is in the list twice")
        return self

    def build(self, sizes):
        raise NotImplementedError

class NoBuild(FusionPart):
    pass

class Unwritable(FusionPart):
    model_config = {{"arbitrary_types_allowed": True}}
    of: object = object()

    def build(self, sizes):
        raise NotImplementedError

class WrongDefault(FusionPart):
    width: int = "many"

    def build(self, sizes):
        raise NotImplementedError
'''
HEAD = """
name: mine
dataset: {name: synthrooms_tiny}
features: {source: vit_mini14_reg4, input_size: [420, 560]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """With a module of its own, named after the test so that no other has imported it."""
    name = f"part_{abs(hash(request.node.name))}"
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text(PART.format(name=name))
    (tmp_path / f"{name}_help.py").write_text("MOST = 100\n")
    (tmp_path / "ditr.toml").write_text(f'[fusion]\nmine = "{name}:Mine"\n')
    return tmp_path


def load(fusion: str, *overrides: str) -> LoadedSpec:
    Path("mine.yaml").write_text(f"{HEAD}fusion: {fusion}\n")
    return load_spec(Path("mine.yaml"), registry=Registry(), overrides=overrides)


def mistakes(fusion: str) -> list[str]:
    with pytest.raises(SpecErrors) as raised:
        load(fusion)
    return [str(one) for one in raised.value.problems]


def test_it_is_loaded_shown_compared_and_read_back(project: Path) -> None:
    loaded = load("{mine: {width: 3}}")
    spec = loaded.spec
    assert spec.fusion.parts["mine"].model_dump() == {"width": 3, "modes": ("a",)}
    assert str(loaded.origins["fusion.mine.width"]) == "mine.yaml:5:24"
    assert spec.read_features is not None
    (project / "again.yaml").write_text(to_yaml(spec))
    assert load_spec(project / "again.yaml", registry=Registry()).spec == spec
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
    assert [one.path for one in diff(spec, load("{mine: {width: 4}}").spec)] == ["fusion.mine.width"]
    assert (variant(spec), shown_variant(variant(spec), fusion=fusion_parts(spec))) == ("custom", "custom (mine)")
    assert load("{mine: {}}", "fusion.mine.width=7").spec.fusion.parts["mine"].model_dump()["width"] == 7


def test_mistakes_are_told_as_those_of_built_in_parts(project: Path) -> None:
    allowed = "allowed: injection, bifusion, stem, mine"
    stride = "a stride of the decoder, 8, 4, 2 or 1, or 16, the bottleneck"
    assert mistakes("{mine: {widht: 3, width: 101}, mien: {}, injection: {scales: [3]}}") == [
        "mine.yaml:5:17: fusion.mine.widht: unknown key; did you mean 'width'? allowed: width, modes",
        "mine.yaml:5:34: fusion.mine.width: must be at most 100; is 101",
        f"mine.yaml:5:40: fusion.mien: unknown key; did you mean 'mine'? {allowed}",
        f"mine.yaml:5:71: fusion.injection.scales[0]: must be {stride}; is 3",
    ]
    assert mistakes("{mine: 3}") == ["mine.yaml:5:16: fusion.mine: must be a map (keys: width, modes) or null; is 3"]
    assert mistakes("{mine: {modes: [b, b]}}") == ["mine.yaml:5:16: fusion.mine: modes: one is in the list twice"]


def test_parts_come_in_one_order_however_they_are_written(project: Path) -> None:
    name = project.joinpath("ditr.toml").read_text().split('"')[1]
    project.joinpath("ditr.toml").write_text(f'[fusion]\nzoo = "{name}"\nark = "{name}"\n')
    written = [load(text).spec for text in ("{zoo: {}, bifusion: {}, ark: {}}", "{ark: {}, zoo: {}, bifusion: {}}")]
    assert [tuple(spec.fusion.parts) for spec in written] == [("bifusion", "ark", "zoo")] * 2
    assert len({spec_hash(spec, registry=Registry()) for spec in written}) == 1


def test_its_code_is_part_of_the_identity_and_of_nothing_else(project: Path) -> None:
    def hashes() -> list[str]:
        return [spec_hash(load(text).spec, registry=Registry()) for text in ("{mine: {}}", "{mine: null}", "{}")]

    first, off, without = hashes()
    assert off == without != first
    assert identity(load("{stem: {}}").spec, registry=Registry())["fusion"].keys() == {"injection", "bifusion", "stem"}
    (help_,) = project.glob("*_help.py")
    help_.write_text("MOST = 100  # a little more\n")
    forget_code()
    assert [one == other for one, other in zip(hashes(), (first, off, without), strict=True)] == [False, True, True]


def test_it_is_in_the_json_schema_of_its_project(project: Path) -> None:
    text = json.dumps(json_schema())
    assert "A part of the test's own." in text
    assert "Channels of it." in text
    properties = json_schema()["$defs"]["FusionSpec"]["properties"]
    assert list(properties) == ["injection", "bifusion", "stem", "mine"]
    assert json_schema()["$defs"]["FusionSpec"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere:Part", "cannot import nowhere: ModuleNotFoundError: No module named"),
        ("json:dumps", "json:dumps is no fusion part"),
        ("ditr.fusion:FusionPart", "ditr.fusion:FusionPart is no fusion part"),
    ],
)
def test_a_part_that_cannot_be_loaded_is_told_at_its_place(project: Path, reference: str, message: str) -> None:
    file = project / "ditr.toml"
    file.write_text(f'[fusion]\nmine = "{reference}"\n')
    (said,) = mistakes("{mine: {}}")
    assert said.startswith(f"mine.yaml:5:16: fusion.mine: {file}: {message}")
    assert load("{stem: {}}").spec.fusion.parts.keys() == {"stem"}, "who does not name it does not meet it"


def entry_points(**parts: str) -> Any:
    return lambda: [EntryPoint(name, value, fusion_table.ENTRY_POINTS) for name, value in parts.items()]


def test_installed_packages_add_parts_and_no_name_means_two(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = project.joinpath("ditr.toml").read_text().split('"')[1]
    monkeypatch.setattr(fusion_table, "_installed", entry_points(packed=reference))
    assert load("{packed: {width: 5}}").spec.fusion.parts.keys() == {"packed"}
    assert "has a fusion part of this name" in FusionSpec.refusal("packed")
    assert not FusionSpec.refusal("unpacked")
    for name in ("mine", "stem", "backbone", "parts", "model_dump"):
        monkeypatch.setattr(fusion_table, "_installed", entry_points(**{name: reference}))
        for fusion in ("{mine: {}}", "{stem: {}}"):
            with pytest.raises(DitrError, match=f"'{name}': .*(taken|of this name too)"):
                load(fusion)


def test_built_in_parts_are_validated_without_torch(project: Path) -> None:
    load("{stem: {}, bifusion: {}, injection: {}}")
    code = (
        "import sys; from pathlib import Path; from ditr.spec.load import load_spec; from ditr.spec.registry import"
        " Registry; load_spec(Path('mine.yaml'), registry=Registry()); print('torch' in sys.modules)"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"], capture_output=True
    )
    assert done.stdout.decode().strip() == "False", done.stderr.decode()


@pytest.mark.parametrize(
    ("attribute", "message"),
    [("WrongDefault", "fusion.mine.width: must be a whole number"), ("Unwritable", "fusion.mine: Unable to serialize")],
)
def test_a_default_that_no_spec_could_say_is_a_mistake(attribute: str, message: str, project: Path) -> None:
    file = project / "ditr.toml"
    file.write_text(file.read_text().replace(":Mine", f":{attribute}"))
    (found,) = mistakes("{mine: {}}")
    assert message in found


def test_the_code_of_what_is_named_counts_also_where_the_class_is_of_another_module(project: Path) -> None:
    file = project / "ditr.toml"
    (name,) = re.findall(r"part_\d+", file.read_text())
    file.write_text(file.read_text().replace(name, f"{name}_names"))
    names = project / f"{name}_names.py"
    names.write_text(f"from {name} import Mine\n")
    before = spec_hash(load("{mine: {}}").spec, registry=Registry())
    names.write_text(f"import {name}_help\nfrom {name} import Mine\n")
    forget_code()
    assert spec_hash(load("{mine: {}}").spec, registry=Registry()) != before
