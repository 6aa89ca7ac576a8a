from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ditr.errors import Code, DitrError
from ditr.model.checkpoint import load_weights, save_weights
from ditr.model.esam import EsamSingleView
from ditr.spec.models import BiFusionSpec, FusionSpec, InjectionSpec

Build = Callable[[FusionSpec], EsamSingleView]
PLAIN = FusionSpec()
FUSED = FusionSpec(bifusion=BiFusionSpec(width=16), injection=InjectionSpec())


def other_weights(build: Build, fusion: FusionSpec = PLAIN) -> dict[str, Tensor]:
    """A state dict that no fresh model has."""
    state = build(fusion).state_dict()
    return {name: tensor + 1 for name, tensor in state.items()}


def backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}


@pytest.mark.parametrize(("prefix", "nest"), [("", False), ("", True), ("model.", True)])
def test_mask3d_sets_the_backbone_and_reports_the_rest(prefix: str, nest: bool, build: Build, tmp_path: Path) -> None:
    stored = backbone(other_weights(build))
    extra = {"backbone.final.kernel": torch.zeros(6, 200), "query_projection.weight": torch.zeros(2)}
    content: Any = {prefix + name: tensor for name, tensor in (stored | extra).items()}
    torch.save({"state_dict": content, "epoch": 3} if nest else content, tmp_path / "mask3d.pth")
    model = build(PLAIN)
    report = load_weights(model, tmp_path / "mask3d.pth", format="mask3d")
    assert report.matched == len(stored)
    assert report.unexpected == tuple(extra)
    assert {name.split(".")[0] for name in report.missing} == {"pool", "decoder"}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in stored.items())


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("fusion", [PLAIN, FUSED])
def test_esam_sets_the_whole_3d_model_of_every_arm(name: str, fusion: FusionSpec, build: Build, tmp_path: Path) -> None:
    stored = other_weights(build)
    if name.endswith(".pth"):
        torch.save({"state_dict": stored, "meta": {"epoch": 128}}, tmp_path / name)
    else:
        save_file(stored, tmp_path / name)
    model = build(fusion)
    report = load_weights(model, tmp_path / name, format="esam")
    assert (report.matched, report.unexpected) == (len(stored), ())
    assert all(entry.startswith(("injection.", "bifusion.")) for entry in report.missing)
    assert all(torch.equal(model.state_dict()[entry], tensor) for entry, tensor in stored.items())


def test_save_then_load_gives_every_weight_back(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "new" / "best.safetensors"
    model = build(FUSED)
    model.load_state_dict(other_weights(build, FUSED))
    save_weights(model, path)
    assert [file.name for file in path.parent.iterdir()] == ["best.safetensors"]
    again = build(FUSED)
    report = load_weights(again, path, format="ditr")
    assert (report.missing, report.unexpected) == ((), ())
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())

    report = load_weights(build(PLAIN), path, format="ditr")
    assert report.missing == ()
    assert {name.split(".")[0] for name in report.unexpected} == {"injection", "bifusion"}


def refused(model: EsamSingleView, path: Path, *, format: str) -> DitrError:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DitrError) as caught:
        load_weights(model, path, format=format)
    assert caught.value.code is Code.CHECKPOINT
    assert caught.value.where == str(path)
    assert caught.value.fix
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return caught.value


def test_missing_entries_are_counted_and_named(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "part.safetensors"
    stored = backbone(other_weights(build))
    whole = len(stored)
    del stored["backbone.conv0p1s1.kernel"], stored["backbone.bn0.bn.weight"]
    save_file(stored, path)
    message = refused(build(PLAIN), path, format="mask3d").what
    assert f"2 of the {whole} weights" in message
    assert "backbone.conv0p1s1.kernel, backbone.bn0.bn.weight" in message
    save_file(backbone(other_weights(build)), path)
    assert "pool.pts_proj1.0.weight" in refused(build(PLAIN), path, format="esam").what


def test_half_of_an_added_part_is_refused(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    stored = other_weights(build, FUSED)
    del stored["bifusion.residual.weight"]
    save_file(stored, path)
    assert "bifusion.residual.weight" in refused(build(FUSED), path, format="ditr").what


def test_other_sizes_and_layouts_are_told_apart(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "shape.safetensors"
    stored = backbone(other_weights(build))
    name = "backbone.conv0p1s1.kernel"
    kernel = stored[name]
    save_file(stored | {name: kernel[:, :, :4].contiguous()}, path)
    error = refused(build(PLAIN), path, format="mask3d")
    assert f"1 of {len(stored)} weights have another shape" in error.what
    assert f"{name} (125, 3, 4), here (125, 3, 5)" in error.what
    assert "planes" in error.fix

    permuted = kernel.reshape(5, 5, 5, 3, 5).permute(4, 2, 1, 0, 3).contiguous()
    save_file(stored | {name: permuted}, path)
    assert "kernel layout" in refused(build(PLAIN), path, format="mask3d").fix


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files(suffix: str, build: Build, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    model = build(PLAIN)
    assert "no such file" in refused(model, path, format="esam").what
    torch.save(model.state_dict(), path) if suffix == ".pth" else save_file(model.state_dict(), path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"<html>404</html>"):
        path.write_bytes(damaged)
        assert "damaged" in refused(model, path, format="esam").what


def test_values_that_are_not_finite_are_refused(build: Build, tmp_path: Path) -> None:
    stored = other_weights(build)
    stored["pool.pts_proj1.0.bias"][2] = torch.nan
    save_file(stored, tmp_path / "nan.safetensors")
    assert "pool.pts_proj1.0.bias" in refused(build(PLAIN), tmp_path / "nan.safetensors", format="ditr").what


class Anything:
    """An object of somebody's training framework."""


def test_pickled_objects_are_not_executed(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "objects.pth"
    torch.save({"state_dict": other_weights(build), "hub": Anything()}, path)
    error = refused(build(PLAIN), path, format="esam")
    assert "objects besides tensors" in error.what
    torch.save({"state_dict": 3}, path)
    assert "no weights" in refused(build(PLAIN), path, format="esam").what
