"""What is said of a spec before it runs: against the known sizes of the published model, and what lies on the disk."""

from __future__ import annotations

import pytest
import torch

from ditr import paths
from ditr.data.dataset import Dataset
from ditr.features.store import FeatureStore
from ditr.runner.costs import Costs, alike, costs
from ditr.spec.feature_maps import map_shape
from ditr.spec.load import load_spec
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

REGISTRY = Registry()


def spec_of(file: str, *overrides: str) -> Spec:
    return load_spec(paths.project_dir() / "specs" / file, registry=REGISTRY, overrides=overrides).spec


def of(file: str, *overrides: str) -> Costs:
    (found,) = costs([spec_of(file, *overrides)], registry=REGISTRY)
    return found


def test_weights_are_those_of_the_published_model_and_of_the_injection_on_top() -> None:
    """Sizes (docs/reference/esam.md, State dict); injecting 1024 channels takes 1024 (256 + 128 + 96 + 96) weights."""
    baseline = of("scannet200_sv/baseline.yaml")
    assert baseline.weights == {"backbone": 37_854_112, "pool": 28_896, "decoder": 3_576_779}
    assert baseline.total_weights == 41_459_787
    injected = of("scannet200_sv/ablations/inject_only.yaml")
    assert injected.weights["injection"] == 1024 * (256 + 128 + 96 + 96)
    assert injected.total_weights - injected.weights["injection"] == baseline.total_weights


def test_without_the_data_nothing_is_guessed_that_depends_on_them() -> None:
    found = of("scannet200_sv/bifusion.yaml")
    assert (found.frames, found.steps, found.forward) == (None, None, None)
    assert found.maps is not None
    assert (found.maps.missing, found.maps.present, found.maps.store) == (None, None, None)
    assert found.maps.bytes_each == 2 * 1024 * 30 * 40 + 128
    assert found.maps.flops_each is not None


def test_steps_maps_and_operations_of_an_embedded_set(tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = (
        "dataset.name=synthrooms_tiny",
        "schedule.batch_size=2",
        "schedule.epochs=3",
        "features.input_size=[98, 70]",
    )
    found = of("bifusion.yaml", *tiny)
    assert (found.frames, found.steps) == ((2, 2), 3)
    assert found.maps is not None
    assert (found.maps.missing, found.maps.present) == (4, 0)
    assert not found.maps.store or not found.maps.store.exists(), "nothing is made"
    baseline, online = of("baseline.yaml", *tiny[:3]), of("ablations/online.yaml", *tiny)
    assert baseline.maps is None
    assert online.maps is not None
    assert (online.maps.missing, online.maps.bytes_each, online.maps.flops_each) == (0, 0, found.maps.flops_each)
    assert baseline.forward is not None
    assert found.forward is not None
    assert online.forward == of("fpn_inject.yaml", *tiny).forward
    assert found.forward.sparse == baseline.forward.sparse
    assert found.forward.dense > baseline.forward.dense

    entry = REGISTRY.features("vit_mini14_reg4")
    shape = map_shape(spec_of("bifusion.yaml", *tiny).features, entry)  # type: ignore[arg-type]
    store = FeatureStore(found.maps.store, shape=shape)  # type: ignore[arg-type]
    store.folder.mkdir(parents=True)
    store.write(tiny_dataset.val.ids[0], torch.zeros(shape, dtype=torch.float16))
    again = of("bifusion.yaml", *tiny).maps
    assert again is not None
    assert (again.missing, again.present) == (3, 1)

    monkeypatch.setenv("DITR_CACHE", str(tiny_dataset.root / "no" / "cache"))
    not_made = of("bifusion.yaml")
    assert (not_made.steps, not_made.frames, not_made.forward) == (4 * 24, (12 * 8, 4 * 8), None)
    assert not_made.maps is not None
    assert not_made.maps.missing == 12 * 8 + 4 * 8, "said by the entry, nothing is made"
    assert not (tiny_dataset.root / "no").exists()


def test_specs_that_differ_in_what_costs_nothing_are_alike() -> None:
    baseline = spec_of("baseline.yaml")
    for override in ("schedule.learning_rate=0.1", "schedule.epochs=7", "seeds=[5]", "name=other", "checkpoint=null"):
        assert alike(spec_of("baseline.yaml", override)) == alike(baseline)
    for override in ("schedule.batch_size=3", "execution.device=cpu", "augmentation=null"):
        assert alike(spec_of("baseline.yaml", override)) != alike(baseline)
