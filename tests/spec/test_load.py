from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ditr.spec.compose import merge
from ditr.spec.feature_maps import map_covers, map_shape
from ditr.spec.load import LoadedSpec, load_spec
from ditr.spec.models import ConstantDecay, ElasticSpec, FileCheckpoint, PolyDecay, RegisteredCheckpoint
from ditr.spec.problems import Origin, SpecErrors
from ditr.spec.registry import Registry
from ditr.spec.yaml_text import Value

HERE = Path(__file__).parent


def load(name: str, *overrides: str) -> LoadedSpec:
    return load_spec(HERE / "good" / f"{name}.yaml", registry=Registry(HERE / "registry"), overrides=overrides)


def test_maps_merge_deeply_and_lists_are_replaced() -> None:
    spec = load("switched_off").spec
    assert spec.name == "switched_off"
    assert spec.dataset.name == "rooms"  # from the grandparent
    assert spec.schedule.epochs == 2
    assert spec.seeds == (7,)


def test_null_switches_an_optional_part_off() -> None:
    before, after = load("bifusion").spec, load("switched_off").spec
    assert before.fusion.bifusion is not None
    assert after.fusion.bifusion is None
    assert before.augmentation is not None
    assert before.augmentation.elastic == ElasticSpec(probability=0.25)
    assert after.augmentation is not None
    assert after.augmentation.elastic is None


def test_a_part_can_be_switched_on_again_below_a_null() -> None:
    spec = load("switched_off", "fusion.bifusion={width: 32}").spec
    assert spec.fusion.bifusion is not None
    assert spec.fusion.bifusion.width == 32


def test_another_kind_replaces_the_whole_part() -> None:
    before, after = load("bifusion").spec, load("switched_off").spec
    assert before.schedule.decay == PolyDecay(kind="poly", power=2.0)
    assert after.schedule.decay == ConstantDecay(kind="constant")
    assert before.checkpoint == RegisteredCheckpoint(kind="registry", name="unet34c")
    assert after.checkpoint == FileCheckpoint(kind="file", path="mine.safetensors", format="ditr")


def test_the_same_kind_keeps_what_is_not_changed() -> None:
    decay = load("bifusion", "schedule.decay={kind: poly, final: 1e-6}").spec.schedule.decay
    assert decay == PolyDecay(kind="poly", power=2.0, final=1e-6)


def test_every_value_knows_where_it_was_written() -> None:
    loaded = load("switched_off", "schedule.batch_size=4")
    good = HERE / "good"
    assert loaded.origins["dataset.name"] == Origin(str(good / "base.yaml"), 2, 17)
    assert loaded.origins["features.input_size[1]"] == Origin(str(good / "base.yaml"), 3, 45)
    assert loaded.origins["fusion.bifusion"] == Origin(str(good / "switched_off.yaml"), 4, 20)
    assert loaded.origins["schedule.batch_size"] == Origin("--set schedule.batch_size=4", 0, 0)
    assert "schedule.learning_rate" not in loaded.origins  # a default
    assert loaded.overrides == ("schedule.batch_size=4",)


def test_overrides_of_one_union_do_not_depend_on_their_order() -> None:
    changes = ["checkpoint.kind=file", "checkpoint.path=w.pth", "checkpoint.format=esam"]
    assert load("bifusion", *changes).spec == load("bifusion", *reversed(changes)).spec


def test_override_values_are_yaml() -> None:
    changes = ["seeds=[4, 5]", "fusion.bifusion=null", "schedule.learning_rate=2e-4", "description=a b"]
    spec = load("bifusion", *changes).spec
    assert (spec.seeds, spec.fusion.bifusion, spec.schedule.learning_rate) == ((4, 5), None, 0.0002)
    assert spec.description == "a b"


def test_a_broken_registry_entry_is_reported_at_its_place_in_the_entry() -> None:
    with pytest.raises(SpecErrors) as raised:
        Registry(HERE / "registry").dataset("broken")
    assert [(problem.origin.line, problem.path) for problem in raised.value.problems] == [
        (2, "seed"),
        (4, "val.scenes"),
        (4, "val.scene"),
        (5, "texture_share"),
    ]
    assert raised.value.code == "registry"


GOOD = sorted(file.stem for file in (HERE / "good").glob("*.yaml"))


@pytest.mark.parametrize("name", GOOD)
def test_what_is_allowed_loads(name: str) -> None:
    assert load(name).spec.name == name


def test_null_takes_an_inherited_input_size_from_precomputed_maps() -> None:
    features = load("precomputed").spec.features
    assert features is not None
    assert features.input_size is None
    entry = Registry(HERE / "registry").features(features.source)
    assert map_shape(features, entry) == (512, 60, 80)
    assert map_covers(features, entry) == (480, 640)


def test_a_padded_map_covers_its_canvas_and_has_a_token_a_patch() -> None:
    features = load("padded").spec.features
    assert features is not None
    entry = Registry(HERE / "registry").features(features.source)
    assert map_shape(features, entry) == (384, 35, 46)
    assert map_covers(features, entry) == (490, 644)


def test_layers_stand_one_after_the_other() -> None:
    features = load("layers").spec.features
    assert features is not None
    assert map_shape(features, Registry(HERE / "registry").features(features.source)) == (4 * 384, 30, 40)


leaves = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
trees = st.dictionaries(
    st.sampled_from("abc"), st.recursive(leaves, lambda inner: st.dictionaries(st.sampled_from("abc"), inner))
)


def as_value(data: object) -> Value:
    if isinstance(data, dict):
        return Value({key: as_value(child) for key, child in data.items()}, Origin("f", 1, 1))
    if isinstance(data, list):
        return Value(tuple(as_value(item) for item in data), Origin("f", 1, 1))
    assert data is None or isinstance(data, int | str)
    return Value(data, Origin("f", 1, 1))


@settings(max_examples=60, deadline=None)
@given(trees, trees, trees)
def test_merging_is_associative_idempotent_and_keeps_every_leaf_of_the_child(a: object, b: object, c: object) -> None:
    one, two, three = as_value(a), as_value(b), as_value(c)
    assert merge(one, one) == one
    assert merge(as_value({}), one) == merge(one, as_value({})) == one
    merged = merge(one, two)
    for path, value in two.walk():
        if not isinstance(value.data, dict):
            assert merged.at(path) == value
    # Not associative only where the middle one replaces a map by something else and the last brings a map back.
    if not any(isinstance(x.data, dict) != isinstance(y.data, dict) for x, y in _pairs(one, two)):
        assert merge(merge(one, two), three) == merge(one, merge(two, three))


def _pairs(one: Value, two: Value) -> list[tuple[Value, Value]]:
    return [(value, other) for path, value in one.walk() if (other := two.at(path)) is not None]


def test_features_are_read_by_a_fusion_alone() -> None:
    spec = load("bifusion").spec
    assert spec.read_features == spec.features
    assert load("bifusion", "fusion.bifusion=null").spec.read_features is None
