from __future__ import annotations

from typing import NoReturn

import pytest

from ditr.data.dataset import Dataset
from ditr.errors import Code, DitrError
from ditr.features import weights
from ditr.paths import project_dir
from ditr.runner.requirements import require_inputs
from ditr.spec.load import load_spec
from ditr.spec.models import Spec
from ditr.spec.registry import Registry

REGISTRY = Registry()
TINY = ("dataset.name=synthrooms_tiny", "checkpoint=null")


def load(name: str, *overrides: str) -> Spec:
    return load_spec(project_dir() / "specs" / f"{name}.yaml", registry=REGISTRY, overrides=overrides).spec


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise DitrError("no weights and no network", code=Code.FEATURES)

    monkeypatch.setattr(weights, "_download", refuse)


def test_everything_missing_is_told_at_once() -> None:
    with pytest.raises(DitrError, match="2 things are missing, so nothing was started") as error:
        require_inputs([load("baseline", *TINY), load("scannet200_sv/baseline")], registry=REGISTRY)
    assert "scannet200-sv" in str(error.value)
    assert "mask3d_scannet200" in str(error.value)


def test_weights_of_a_source_are_needed_only_for_maps_that_are_not_there(offline: None, tiny_dataset: Dataset) -> None:
    published = "features.source=dinov2_vitl14_reg4"
    require_inputs([load("baseline", *TINY, published)], registry=REGISTRY)
    require_inputs([load("fpn_inject", *TINY)], registry=REGISTRY)
    with pytest.raises(DitrError, match="no weights"):
        require_inputs([load("fpn_inject", *TINY, published)], registry=REGISTRY)
