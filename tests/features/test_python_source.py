"""A network of the user's: what its class gives is what is read, and what it gets wrong is one message."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from ditr.data.dataset import Dataset
from ditr.errors import Code, DitrError
from ditr.features.extract import extract, store_folder
from ditr.features.sources import load_source, require_source
from ditr.spec.entries import PretrainedWeights, PythonEntry, SeededWeights
from ditr.spec.identity import spec_hash
from ditr.spec.load import load_spec
from ditr.spec.models import FeatureSpec
from ditr.spec.registry import Registry
from tests.reference.another_process import forget_code

CPU = torch.device("cpu")
SPEC = FeatureSpec(source="mine", input_size=(24, 32))
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
ENTRY = PythonEntry(kind="python", module="mine:Mine", channels=3, patch=8, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
HEAD = "import torch\nfrom torch import nn\nfrom torch.nn.functional import avg_pool2d\n"
MEANS = "return avg_pool2d(pixels, 8)"
Write = Callable[..., PythonEntry]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Makes a project whose module ``mine`` has a class of this ``forward`` and ``__init__``."""
    (tmp_path / "ditr.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # kept by the second of writing, in which there are several

    def written(forward: str = MEANS, *, init: str = "pass", base: str = "nn.Module", more: str = "") -> PythonEntry:
        forget_code("mine")
        lines = (
            f"{HEAD}{more}\nclass Mine({base}):\n    def __init__(self, weights=None):\n        super().__init__()\n"
        )
        (tmp_path / "mine.py").write_text(f"{lines}        {init}\n    def forward(self, pixels):\n        {forward}\n")
        return ENTRY

    return written


def test_maps_are_what_the_class_makes_of_pixels_normalised_as_the_entry_says(write: Write) -> None:
    maps = load_source(SPEC, entry=write(), device=CPU).encode(IMAGES)
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (ENTRY.mean, ENTRY.std))
    torch.testing.assert_close(maps, avg_pool2d((pixels - mean) / std, 8).half())


def test_the_class_is_drawn_from_the_seed_or_gets_its_file(write: Write, tmp_path: Path) -> None:
    entry = write(init="self.weight = nn.Parameter(torch.load(weights) if weights else torch.rand(1))")
    seeds = [entry.model_copy(update={"weights": SeededWeights(kind="seeded", seed=seed)}) for seed in (3, 3, 4)]
    first, again, other = (load_source(SPEC, entry=each, device=CPU).weights_digest() for each in seeds)
    assert first == again != other
    of_file = entry.model_copy(update={"weights": PretrainedWeights(kind="pretrained", file="mine.pth")})
    with pytest.raises(DitrError, match="the weights of mine:Mine are not on this machine") as raised:
        load_source(SPEC, entry=of_file, device=CPU)
    assert "mine.pth" in raised.value.fix
    path = tmp_path / "registry" / "features" / "mine.pth"
    path.parent.mkdir(parents=True)
    torch.save(torch.tensor([7.0]), path)
    source = load_source(SPEC, entry=of_file, device=CPU)
    assert source.model.weight.item() == 7
    assert str(source.weights_stamp).startswith("sha256 ")


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        ("return avg_pool2d(pixels, 8)[:, :2]", r"gives maps of \(1, 2, 3, 4\), not \(1, 3, 3, 4\) as channels: 3"),
        ("return avg_pool2d(pixels, 4)", r"gives maps of \(1, 3, 6, 8\), not \(1, 3, 3, 4\)"),
        ("return avg_pool2d(pixels, 8).flatten(2).mT", r"gives maps of \(1, 12, 3\)"),
        ("return [avg_pool2d(pixels, 8)]", "gives a list, not a tensor"),
        ("return avg_pool2d(pixels, 8).long()", "gives maps of torch.int64, not of floats"),
        ("return avg_pool2d(pixels, 8).to('meta')", "gives maps on meta of images on cpu"),
        ("return pixels @ pixels", r"fails on images of \(1, 3, 24, 32\).*mine.py:10"),
        ("raise KeyError('clip')", r"KeyError: 'clip' \(.*mine.py:10\)"),
    ],
)
def test_what_a_class_gives_wrong_is_one_message_before_a_run_starts(write: Write, forward: str, message: str) -> None:
    entry = write(forward)
    with pytest.raises(DitrError, match=message) as raised:
        require_source(SPEC, entry=entry)
    assert (raised.value.code, raised.value.where) == (Code.FEATURES, "mine:Mine")
    assert "docs/your_source.md" in raised.value.fix


def test_what_cannot_be_made_is_said(write: Write) -> None:
    with pytest.raises(DitrError, match=r"cannot be made without an argument: ValueError: no file.*mine.py:8"):
        require_source(SPEC, entry=write(init="raise ValueError('no file')"))
    with pytest.raises(DitrError, match=r"the class makes a Mine, not a torch\.nn\.Module"):
        require_source(SPEC, entry=write(base="object"))
    with pytest.raises(DitrError, match="module mine has no Other; it has"):
        require_source(SPEC, entry=write().model_copy(update={"module": "mine:Other"}))


def test_values_that_are_not_finite_are_never_stored(write: Write, tiny_dataset: Dataset) -> None:
    entry = write("return avg_pool2d(pixels, 8) * float('nan')")
    with pytest.raises(DitrError, match="not finite in float16"):
        extract([tiny_dataset.train], spec=SPEC, entry=entry, dataset=tiny_dataset, device=CPU)


def test_maps_of_other_code_are_other_maps(write: Write, tiny_dataset: Dataset) -> None:
    entry = write()
    made = extract([tiny_dataset.train], spec=SPEC, entry=entry, dataset=tiny_dataset, device=CPU)
    manifest = made.maps.manifest()
    assert manifest is not None
    assert len(manifest["code_digest"]) == 32
    again = extract([tiny_dataset.train], spec=SPEC, entry=entry, dataset=tiny_dataset, device=CPU)
    assert (made.made, again.made, again.folder) == (2, 0, made.folder)
    write("return 2 * avg_pool2d(pixels, 8)")
    assert store_folder(spec=SPEC, entry=entry, dataset=tiny_dataset) != made.folder


def test_the_code_is_part_of_an_experiments_identity(write: Write, tmp_path: Path) -> None:
    write()
    (tmp_path / "registry" / "features").mkdir(parents=True)
    (tmp_path / "registry" / "features" / "mine.yaml").write_text(
        "kind: python\nmodule: mine:Mine\nchannels: 3\npatch: 8\n"
    )
    spec = tmp_path / "mine.yaml"
    spec.write_text("extends: ditr:bifusion.yaml\nname: mine\nfeatures: {source: mine, input_size: [480, 640]}\n")
    before = spec_hash(load_spec(spec, registry=Registry()).spec, registry=Registry())
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    assert spec_hash(load_spec(spec, registry=Registry()).spec, registry=Registry()) == before
    write("return 2 * avg_pool2d(pixels, 8)")
    assert spec_hash(load_spec(spec, registry=Registry()).spec, registry=Registry()) != before
