"""What is said of a spec before it runs: against the known sizes of the published model, and what lies on the disk."""

from __future__ import annotations

import pytest

from ditr import paths
from ditr.data.dataset import Dataset
from ditr.runner.costs import costs
from ditr.spec.load import load_spec
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

REGISTRY = Registry()


def spec_of(file: str, *overrides: str) -> Spec:
    return load_spec(paths.project_dir() / "specs" / file, registry=REGISTRY, overrides=overrides).spec


def test_weights_are_those_of_the_published_model_and_of_the_injection_on_top() -> None:
    """Sizes of reference/esam_sv.md section 0; an injection of 1024 channels has 1024 (256 + 128 + 96 + 96) weights."""
    baseline = costs(spec_of("scannet200_sv/baseline.yaml"), registry=REGISTRY)
    assert baseline.weights == {"backbone": 37_854_112, "pool": 28_896, "decoder": 3_576_779}
    assert baseline.total_weights == 41_459_787
    injected = costs(spec_of("scannet200_sv/ablations/inject_only.yaml"), registry=REGISTRY)
    assert injected.weights["injection"] == 1024 * (256 + 128 + 96 + 96)
    assert injected.total_weights - injected.weights["injection"] == baseline.total_weights


def test_without_the_data_steps_and_maps_are_not_guessed() -> None:
    found = costs(spec_of("scannet200_sv/bifusion.yaml"), registry=REGISTRY)
    assert (found.steps, found.missing_maps) == (None, None)
    assert found.map_bytes == 2 * 1024 * 30 * 40 + 128


def test_steps_and_missing_maps_of_an_embedded_set(tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = (
        "dataset.name=synthrooms_tiny",
        "schedule.batch_size=2",
        "schedule.epochs=3",
        "features.input_size=[28, 42]",
    )
    found = costs(spec_of("bifusion.yaml", *tiny), registry=REGISTRY)
    assert (found.steps, found.missing_maps) == (3, 4)
    assert costs(spec_of("baseline.yaml", *tiny[:3]), registry=REGISTRY).missing_maps == 0
    online = costs(spec_of("ablations/online.yaml", *tiny), registry=REGISTRY)
    assert (online.missing_maps, online.map_bytes) == (0, 0)
    monkeypatch.setenv("DITR_CACHE", str(tiny_dataset.root / "no" / "cache"))
    not_made = costs(spec_of("bifusion.yaml"), registry=REGISTRY)
    assert (not_made.steps, not_made.missing_maps) == (4 * 24, 12 * 8 + 4 * 8), "said by the entry, nothing is made"
    assert not (tiny_dataset.root / "no").exists()
