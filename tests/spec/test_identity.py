from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ditr.spec.diff import diff
from ditr.spec.dump import to_yaml
from ditr.spec.identity import evaluation_hash, identity, run_hashes, run_key, spec_hash, variant
from ditr.spec.load import load_spec
from ditr.spec.models import Spec
from ditr.spec.problems import SpecErrors
from ditr.spec.registry import Registry

REGISTRY = Registry(Path(__file__).parent / "registry")
GATE: dict[str, Any] = {"gate": "lite"}
FEATURES: dict[str, Any] = {"source": "vit14", "input_size": [420, 560]}

positive = st.floats(min_value=1e-8, max_value=100)
voxel_size = st.floats(min_value=1e-3, max_value=10)
probability = st.floats(min_value=0, max_value=1)
count = st.integers(min_value=1, max_value=10**6)
channels = st.integers(min_value=1, max_value=4_096)


def part(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields may be left to its default."""
    return st.fixed_dictionaries({}, optional=fields)


specs = st.fixed_dictionaries(
    {"name": st.from_regex(r"[a-z0-9][a-z0-9_]{0,8}", fullmatch=True), "dataset": st.just({"name": "rooms"})},
    optional={
        "description": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
        "tags": st.lists(st.sampled_from(["yes", "no", "null", "1e-3", "010", "a: b", "# c", "~"]), unique=True),
        "features": st.just(FEATURES),
        "schedule": part(
            epochs=count,
            learning_rate=positive,
            weight_decay=positive,
            decay=st.just({"kind": "constant"}) | part(power=positive).map(lambda fields: {"kind": "poly", **fields}),
        ),
        "augmentation": st.none()
        | part(flip_probability=probability, elastic=st.none() | part(probability=probability)),
        "loss": part(dice_aux=positive, semantic=positive),
        "model": part(voxel_size_m=voxel_size, backbone=part(planes=st.lists(channels, min_size=8, max_size=8))),
        "seeds": st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True),
        "tracking": part(mlflow=st.booleans()),
    },
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(specs)
def test_the_resolved_yaml_loads_back_to_an_equal_spec(tmp_path: Path, data: dict[str, Any]) -> None:
    spec = Spec.model_validate(data)
    file = tmp_path / "resolved.yaml"
    file.write_text(to_yaml(spec), encoding="utf-8")
    again = load_spec(file, registry=REGISTRY).spec
    assert again == spec
    assert spec_hash(again, registry=REGISTRY) == spec_hash(spec, registry=REGISTRY)
    assert diff(spec, again) == ()


@settings(max_examples=30, deadline=None)
@given(specs, st.randoms(use_true_random=False))
def test_the_hash_does_not_depend_on_the_order_of_keys(data: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    assert hash_of(shuffled(data)) == hash_of(data)


def test_the_engine_and_the_precision_that_a_run_had_are_part_of_it() -> None:
    runs = [
        {"engine": "minkowski"},
        {"engine": "triton"},
        {"engine": "triton", "precision": "bfloat16"},
        {"engine": "triton", "precision": "float16"},
    ]
    assert len({hash_of(arm(execution=execution)) for execution in runs}) == len(runs)
    assert len({_evaluated(execution) for execution in runs}) == len(runs)


def test_an_engine_that_was_the_only_one_keeps_its_keys() -> None:
    """Identities of before say nothing of it."""
    first = identity(Spec.model_validate(arm(execution={"engine": "minkowski"})), registry=REGISTRY)
    assert "execution" not in first
    text = json.dumps(first, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == hash_of(arm(execution={"engine": "minkowski"}))


@pytest.mark.parametrize(
    ("execution", "engines"),
    [
        ({}, ["minkowski", "triton"]),
        ({"device": "cuda"}, ["minkowski", "triton"]),
        ({"device": "cpu"}, ["minkowski"]),
        ({"engine": "minkowski"}, ["minkowski"]),
        ({"engine": "triton"}, ["triton"]),
        ({"precision": "bfloat16"}, ["triton"]),
    ],
)
def test_a_spec_that_leaves_the_engine_open_may_be_several_runs(execution: dict[str, str], engines: list[str]) -> None:
    hashes = run_hashes(Spec.model_validate(arm(execution=execution)), registry=REGISTRY)
    assert list(hashes) == engines
    for engine, found in hashes.items():
        assert found == hash_of(arm(execution={**execution, "engine": engine}))


def test_an_evaluation_is_another_with_other_batches_and_whatever_else_the_schedule_says() -> None:
    """Its batches are the schedule's; those that older versions recorded were of single frames."""

    def evaluated(**schedule: int) -> str:
        return _evaluated({}, schedule=schedule)

    assert evaluated(batch_size=4) != evaluated(batch_size=8)
    assert evaluated(batch_size=4) == evaluated(batch_size=4, epochs=77)


def _evaluated(execution: dict[str, str], **parts: Any) -> str:
    spec = Spec.model_validate(arm(execution=execution, **parts))
    return evaluation_hash(spec, registry=REGISTRY, weights_sha256="ab", split="val", frames=None)


def hash_of(data: dict[str, Any]) -> str:
    return spec_hash(Spec.model_validate(data), registry=REGISTRY)


def arm(**changes: Any) -> dict[str, Any]:
    return {"name": "arm", "dataset": {"name": "rooms"}, "features": FEATURES, "fusion": {"bifusion": GATE}, **changes}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"description": "other words"},
        {"tags": ["x"]},
        {"seeds": [3, 4]},
        {"tracking": {"mlflow": False}},
        {"execution": {"device": "cpu", "workers": 0}},
        {"checks": {"min_valid_ratio": 0.5, "steps": 7, "max_forward_s": 1.0}},
        {"features": {**FEATURES, "mode": "stored", "resize": "resize", "layers": [-1], "dtype": "float32"}},
        {"fusion": {"bifusion": GATE, "stem": None}},
        {"loss": {}},
        {"loss": {"semantic": 0.5}},  # the default, written out
    ],
)
def test_what_changes_no_number_does_not_change_the_hash(change: dict[str, Any]) -> None:
    assert hash_of(arm(**change)) == hash_of(arm())


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": {"name": "rooms_big"}},
        *(
            {"features": {**FEATURES, **change}}
            for change in (
                {"sampling": "nearest"},
                {"input_size": [462, 616]},
                {"resize": "pad"},
                {"layers": [5, -1]},
                {"dtype": "bfloat16"},
                {"mode": "online"},
                {"mode": "online", "augmentation": {}},
                {"weights": {"kind": "seeded", "seed": 1}},
                {"weights": {"kind": "file", "path": "mine.pth"}},
                {"weights": {"kind": "hub"}},
            )
        ),
        {"fusion": {"bifusion": GATE, "stem": {}}},
        {"fusion": {"bifusion": {"gate": "lite", "dropout": 0.2}}},
        {"fusion": {"bifusion": GATE, "injection": {}}},
        {"model": {"voxel_size_m": 0.020000000000000004}},  # the next float after 0.02
        {"checkpoint": {"kind": "registry", "name": "unet34c"}},
        {"augmentation": None},
        {"loss": {"dice_aux": 1.0}},
        {"esam_compat": True},
        {"schedule": {"decay": {"kind": "poly", "final": 1e-9}}},
        {"evaluation": {"min_points": 99}},
    ],
)
def test_what_can_change_a_number_changes_the_hash(change: dict[str, Any]) -> None:
    assert hash_of(arm(**change)) != hash_of(arm())


INJECTION: dict[str, Any] = {"pooling": "max", "scales": [8, 1]}


def test_each_choice_of_an_injection_or_a_stem_is_an_arm_of_its_own() -> None:
    injections = [{}, {"order": "project_then_pool"}, {"scales": [16, 8, 1]}, {"pooling": "mean"}, {"target": "skip"}]
    fusions = [{"injection": {**INJECTION, **change}} for change in injections]
    fusions += [{"stem": {}}, {"stem": {"init": "random"}}, {"stem": {"projection": "linear_bn_gelu"}}]
    assert len({hash_of(arm(fusion=fusion)) for fusion in fusions}) == len(fusions)


def test_features_count_only_where_a_fusion_reads_them() -> None:
    other = {"source": "vit14", "input_size": [462, 616], "layers": [5], "dtype": "float16", "mode": "online"}
    assert hash_of(arm(fusion={}, features=other)) == hash_of(arm(fusion={}, features=None))
    assert hash_of(arm(features=other)) != hash_of(arm())


def test_an_edited_entry_changes_the_hash_and_its_prose_does_not(tmp_path: Path) -> None:
    spec = Spec.model_validate(arm(checkpoint={"kind": "registry", "name": "unet34c"}))
    before = spec_hash(spec, registry=REGISTRY)
    shutil.copytree(REGISTRY.folders[0], tmp_path, dirs_exist_ok=True)
    for entry in ("datasets/rooms", "checkpoints/unet34c", "features/vit14"):
        file = tmp_path / f"{entry}.yaml"
        original = file.read_text()
        file.write_text(original.replace("licence: none", "licence: other") + "description: other words\n")
        assert spec_hash(spec, registry=Registry(tmp_path)) == before
        edited = original.replace("texture_share: 0.4", "texture_share: 0.5").replace("0.485", "0.5")
        file.write_text(edited.replace("sha256: null", f"sha256: {'a' * 64}"))
        assert spec_hash(spec, registry=Registry(tmp_path)) != before
        file.write_text(original)


def test_what_an_entry_tells_readers_alone_changes_no_hash(tmp_path: Path) -> None:
    spec = Spec.model_validate(arm())
    shutil.copytree(REGISTRY.folders[0], tmp_path, dirs_exist_ok=True)
    file = tmp_path / "features/vit14.yaml"
    told = "sizes: [[420, 560]]\nlicence_url: https://example.org/terms\n"
    file.write_text(file.read_text() + told)
    assert spec_hash(spec, registry=Registry(tmp_path)) == spec_hash(spec, registry=REGISTRY)


def test_what_a_precomputed_map_covers_is_part_of_the_identity(tmp_path: Path) -> None:
    spec = Spec.model_validate(arm(features={"source": "clip_maps"}))
    shutil.copytree(REGISTRY.folders[0], tmp_path, dirs_exist_ok=True)
    file = tmp_path / "features/clip_maps.yaml"
    file.write_text(file.read_text().replace("covers: [480, 640]", "covers: [490, 644]"))
    assert spec_hash(spec, registry=Registry(tmp_path)) != spec_hash(spec, registry=REGISTRY)


def test_the_identity_is_json_and_names_no_registry_entry() -> None:
    text = json.dumps(identity(Spec.model_validate(arm()), registry=REGISTRY))
    assert '"rooms"' not in text
    assert '"vit14"' not in text
    assert '"texture_share": 0.4' in text


def test_seeds_get_keys_of_their_own() -> None:
    keys = {run_key("ab" * 32, seed) for seed in range(50)} | {run_key("cd" * 32, 0)}
    assert len(keys) == 51
    assert all(len(key) == 10 and set(key) <= set("0123456789abcdef") for key in keys)


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        ({}, "baseline"),
        ({"bifusion": GATE}, "bifusion"),
        ({"bifusion": GATE, "injection": {}}, "fpn_inject"),
        ({"bifusion": GATE, "injection": {"scales": [1, 2, 4, 8]}}, "fpn_inject"),
        ({"bifusion": GATE, "injection": {"scales": [8, 4]}}, "custom"),
        ({"injection": {}}, "custom"),
        ({"bifusion": GATE, "injection": {"scales": [16, 8, 4, 2, 1]}}, "custom"),
        ({"stem": {}}, "custom"),
        ({"bifusion": GATE, "stem": {}}, "custom"),
        ({"bifusion": GATE, "injection": {}, "stem": {}}, "custom"),
    ],
)
def test_variant(fusion: dict[str, Any], expected: str) -> None:
    assert variant(Spec.model_validate(arm(fusion=fusion))) == expected


def test_an_arm_whose_features_tell_nothing_is_no_arm_of_the_study() -> None:
    for change in ({"control": "zero"}, {"control": "shuffled"}, {"weights": {"kind": "seeded", "seed": 0}}):
        features = {"source": "vit_mini", "input_size": [28, 28], **change}
        assert variant(Spec.model_validate(arm(features=features))) == "custom"
        assert variant(Spec.model_validate(arm(features=features, fusion={}))) == "baseline", "nothing reads them"


def test_a_diff_names_only_what_differs() -> None:
    one, other = Spec.model_validate(arm()), Spec.model_validate(arm(fusion={}, schedule={"epochs": 3}))
    differences = diff(one, other)
    assert [(found.path, found.second) for found in differences] == [("fusion.bifusion", None), ("schedule.epochs", 3)]
    assert diff(one, one) == ()


def test_a_diff_across_kinds_shows_keys_that_only_one_has() -> None:
    one = Spec.model_validate(arm(schedule={"decay": {"kind": "poly"}}))
    other = Spec.model_validate(arm(schedule={"decay": {"kind": "constant"}}))
    assert [(found.path, found.first, found.second) for found in diff(one, other)] == [
        ("schedule.decay.kind", "poly", "constant"),
        ("schedule.decay.power", 0.9, "absent"),
        ("schedule.decay.final", 0.0, "absent"),
    ]


def test_identity_of_a_spec_with_a_broken_entry_is_refused() -> None:
    with pytest.raises(SpecErrors):
        hash_of(arm(dataset={"name": "broken"}))
