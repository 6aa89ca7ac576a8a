"""A sweep: which specs a matrix makes, what they are called, and where their values come from."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ditr.spec.diff import diff
from ditr.spec.load import LoadedSpec, check_base, load_all, load_spec
from ditr.spec.models import ConstantDecay
from ditr.spec.overrides import read_override
from ditr.spec.problems import Origin, SpecErrors
from ditr.spec.registry import Registry
from ditr.spec.sweep_points import Point
from ditr.spec.yaml_text import parse

HERE = Path(__file__).parent
REGISTRY = Registry(HERE / "registry")
SWEEP = HERE / "sweep.yaml"


def load(*overrides: str) -> dict[str, LoadedSpec]:
    return {loaded.spec.name: loaded for loaded in load_all(SWEEP, registry=REGISTRY, overrides=overrides)}


def test_rows_of_zip_go_with_every_combination_of_product_and_points_stand_alone() -> None:
    combined = itertools.product([("small", 0.02, 2), ("large", 0.04, 4)], ["0p0001", "5em05"], [None, 32])
    specs = load()
    for name, (row, rate, width) in zip(specs, combined, strict=False):
        gate = "null" if width is None else f"gate_lite_width_{width}"
        assert name == f"sweep_{row[0]}_learning_rate_{rate}_bifusion_{gate}"
        spec = specs[name].spec
        bifusion = spec.fusion.bifusion
        assert (spec.schedule.weight_decay, spec.schedule.batch_size) == row[1:]
        assert spec.schedule.learning_rate == float(rate.replace("p", ".").replace("m", "-"))
        assert (bifusion and bifusion.width) == width
    assert list(specs)[8:] == ["sweep_kind_constant_epochs_3", "sweep_as_it_is"]
    assert specs["sweep_kind_constant_epochs_3"].spec.schedule.decay == ConstantDecay(kind="constant")


def test_nothing_differs_but_the_name_and_what_the_matrix_says() -> None:
    parent = load_spec(HERE / "good/bifusion.yaml", registry=REGISTRY).spec
    specs = load()
    assert [found.path for found in diff(parent, specs["sweep_as_it_is"].spec)] == ["name"]
    named = {"name", "schedule.learning_rate", "fusion.bifusion", "schedule.weight_decay", "schedule.batch_size"}
    for loaded in list(specs.values())[:8]:
        assert {found.path for found in diff(parent, loaded.spec)} <= named | {"fusion.bifusion.width"}


def test_each_spec_says_its_place_its_values_and_their_lines() -> None:
    loaded = load("seeds=[4]")["sweep_small_learning_rate_5em05_bifusion_gate_lite_width_32"]
    assert loaded.path == Path(f"{SWEEP}::{loaded.spec.name}")
    assert loaded.overrides == (
        "schedule.weight_decay=0.02",
        "schedule.batch_size=2",
        "schedule.learning_rate=5.0e-5",
        "fusion.bifusion={gate: lite, width: 32}",
        "seeds=[4]",
    )
    assert loaded.origins["schedule.learning_rate"] == Origin(str(SWEEP), 5, 38)
    assert loaded.origins["fusion.bifusion.width"] == Origin(str(SWEEP), 6, 49)
    assert loaded.origins["dataset.name"].file == str(HERE / "good/base.yaml")
    assert load_spec(loaded.path, registry=REGISTRY, overrides=["seeds=[4]"]) == loaded
    same = load_spec(HERE / "good/bifusion.yaml", registry=REGISTRY, overrides=loaded.overrides).spec
    assert [found.path for found in diff(same, loaded.spec)] == ["name"]


def test_a_value_of_the_matrix_cannot_be_set_but_what_stands_beside_it_can() -> None:
    with pytest.raises(SpecErrors) as raised:
        load("fusion.bifusion={width: 16}", "schedule.epochs=3", "schedule.grad_clip_norm=1")
    assert [str(problem) for problem in raised.value.problems] == [
        "--set fusion.bifusion={width: 16}: fusion.bifusion: the matrix sets it too; keep one of the two",
        "--set schedule.epochs=3: schedule.epochs: the matrix sets it too; keep one of the two",
    ]
    with pytest.raises(SpecErrors, match=r"--set schedule=null: schedule.batch_size: the matrix sets it too"):
        load("schedule=null")
    beside = load("schedule.grad_clip_norm=1.0", "fusion.injection={scales: [8]}")
    assert {loaded.spec.schedule.grad_clip_norm for loaded in beside.values()} == {1.0}


def test_an_override_of_a_part_that_the_matrix_replaces_is_no_race() -> None:
    with pytest.raises(SpecErrors, match=r"^--set schedule.decay.power=3: schedule.decay.power: unknown key"):
        load("schedule.decay.power=3")


def test_a_name_that_no_spec_of_the_sweep_has_and_a_name_for_no_sweep() -> None:
    with pytest.raises(SpecErrors, match=r":3:1: matrix: no spec of this sweep is called 'sweep_as_is'; did you mean"):
        load_spec(Path(f"{SWEEP}::sweep_as_is"), registry=REGISTRY)
    with pytest.raises(SpecErrors, match="no sweep, but one spec; leave ::arm out"):
        load_spec(HERE / "good/bifusion.yaml::arm", registry=REGISTRY)


def test_a_base_is_no_sweep(tmp_path: Path) -> None:
    base = tmp_path / "_base.yaml"
    base.write_text("dataset: {name: rooms}\nmatrix: {product: {schedule.epochs: [1, 2]}}\n")
    with pytest.raises(SpecErrors, match=r"_base.yaml:2:1: matrix: not in a base; put it into a sweep"):
        check_base(base)


def test_a_label_is_as_long_as_it_has_to_be(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    matrix = "{product: {dataset.name: [rooms], checkpoint.name: [unet34c], model.decoder.heads: [4]}}"
    sweep.write_text(f"{(HERE / 'good/base.yaml').read_text()}\nmatrix: {matrix}\n")
    (loaded,) = load_all(sweep, registry=REGISTRY)
    assert loaded.spec.name == "base_dataset_name_rooms_checkpoint_name_unet34c_heads_4"


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]))
)
keys = st.sampled_from(["gate", "width", "kind"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@settings(max_examples=150, deadline=None)
@given(values, st.sampled_from([True, False, None]))
def test_an_override_reads_as_the_value_in_the_matrix(value: Any, flow: bool | None) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    yaml.allow_unicode = True
    text = io.StringIO()
    yaml.dump({"it": value}, text)
    source = parse(text.getvalue(), file="f")
    assume(source.value is not None and not source.problems)
    assert source.value is not None
    written = source.value.at(("it",))
    assert written is not None
    (override,) = Point({"a.b": written}, "").overrides
    again, problems = read_override(override)
    assert not problems
    assert again is not None
    assert again.plain() == {"a": {"b": written.plain()}}
