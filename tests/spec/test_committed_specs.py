"""Every spec and registry entry of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from ditr.spec.diff import diff
from ditr.spec.identity import spec_hash, variant
from ditr.spec.load import check_base, load_all, load_spec
from ditr.spec.registry import Registry

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "specs").rglob("*.yaml"))
ARMS = ("baseline", "bifusion", "fpn_inject")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(ROOT / "registry")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_it_is_valid(file: Path, registry: Registry) -> None:
    if file.name.startswith("_"):
        check_base(file)
    else:
        load_all(file, registry=registry)


@pytest.mark.parametrize("folder", ["specs", "specs/scannet200_sv"])
def test_the_arms_differ_in_fusion_and_name_only(folder: str, registry: Registry) -> None:
    loaded = {arm: load_spec(ROOT / folder / f"{arm}.yaml", registry=registry).spec for arm in ARMS}
    assert {arm: variant(spec) for arm, spec in loaded.items()} == {arm: arm for arm in ARMS}
    for arm in ARMS[1:]:
        paths = {found.path for found in diff(loaded["baseline"], loaded[arm])}
        assert paths <= {"name", "fusion.bifusion", "fusion.injection"}
    assert len({spec_hash(spec, registry=registry) for spec in loaded.values()}) == 3


def test_the_3d_only_control_is_the_baseline_and_other_controls_are_no_arm(registry: Registry) -> None:
    def of(name: str) -> str:
        return spec_hash(load_spec(ROOT / "specs" / f"{name}.yaml", registry=registry).spec, registry=registry)

    assert of("ablations/control_3d_only") == of("baseline")
    for file in FILES:
        if file.stem.startswith("control_") and file.stem != "control_3d_only":
            spec = load_spec(file, registry=registry).spec
            folders = (file.parent, file.parents[1])
            arm = next(arm for folder in folders if (arm := folder / "fpn_inject.yaml").is_file())
            whole = load_spec(arm, registry=registry).spec
            changed = {found.path for found in diff(spec, whole)} - {"name"}
            assert changed <= {"features.control", "features.weights"}
            assert variant(spec) == "custom"


def test_the_sweep_of_learning_rates_is_of_the_arms_and_runs_none_of_them_twice(registry: Registry) -> None:
    members = load_all(ROOT / "specs/sweeps/learning_rate.yaml", registry=registry)
    hashes = {loaded.spec.name: spec_hash(loaded.spec, registry=registry) for loaded in members}
    assert len(hashes) == 12
    for arm in ("baseline", "bifusion", "ablations/inject_only", "fpn_inject"):
        spec = load_spec(ROOT / "specs" / f"{arm}.yaml", registry=registry).spec
        assert hashes[f"arm_{spec.name}_learning_rate_0p0001"] == spec_hash(spec, registry=registry)


def test_no_arm_trains_from_scratch(registry: Registry) -> None:
    for file in FILES:
        if file.stem in ARMS:
            assert all(loaded.spec.checkpoint is not None for loaded in load_all(file, registry=registry))


def test_every_registry_entry_is_valid(registry: Registry) -> None:
    for name in registry.names("datasets"):
        registry.dataset(name)
    for name in registry.names("features"):
        registry.features(name)
    for name in registry.names("checkpoints"):
        registry.checkpoint(name)
    assert {"synthrooms", "scannet200_sv"} <= set(registry.names("datasets"))


def test_each_spec_names_the_schema_for_editors() -> None:
    for file in FILES:
        if file.name.startswith("_"):
            continue
        first = file.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        assert (file.parent / first.partition("=")[2]).resolve() == ROOT / "registry" / "spec.schema.json"
