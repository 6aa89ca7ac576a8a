"""Loading into a small model: what must match, what may be left over, what is refused, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ditr.errors import Code, DitrError
from ditr.model.esam import EsamSingleView
from ditr.model.res16unet import Res16UNet
from ditr.spec.fusion import BiFusionSpec, FusionSpec, InjectionSpec, StemSpec
from ditr.spec.models import BackboneSpec
from ditr.weights.description import describe
from ditr.weights.loading import load_weights
from ditr.weights.saving import save_weights
from tests.reference.esam_checkpoint import in_spconv_layout
from tests.reference.own_parts import Everywhere

Build = Callable[[FusionSpec], EsamSingleView]
PLAIN = FusionSpec()
FUSED = FusionSpec(bifusion=BiFusionSpec(width=16), injection=InjectionSpec(), stem=StemSpec())


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
    report = load_weights(model, tmp_path / "mask3d.pth", format="mask3d", key_prefix=prefix, entries=len(stored))
    assert report.matched == len(stored)
    assert report.unexpected == tuple(prefix + name for name in extra)
    groups = {one.group: (len(one.matched), len(one.missing), len(one.unexpected)) for one in report.by_group}
    assert list(groups) == ["backbone", "pool", "decoder", "other"]
    assert groups["backbone"] == (len(stored), 0, 1)
    assert groups["other"] == (0, 0, 1)
    assert groups["pool"][0] == groups["decoder"][0] == 0
    assert report.converted == {}
    lines = report.lines()
    assert f"backbone  {len(stored)} of {len(stored)} set, 1 of the file unused: {prefix}backbone.final.kernel" in lines
    assert f"pool      0 of {groups['pool'][1]} set, {groups['pool'][1]} start fresh" in lines
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
    assert all(entry.startswith(("injection.", "bifusion.", "stem.")) for entry in report.missing)
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
    assert {name.split(".")[0] for name in report.unexpected} == {"injection", "bifusion", "stem"}


def refused(
    model: EsamSingleView,
    path: Path,
    *,
    format: str,
    key_prefix: str = "",
    entries: int | None = None,
    whole: bool = False,
) -> DitrError:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(DitrError) as caught:
        load_weights(model, path, format=format, key_prefix=key_prefix, entries=entries, whole=whole)
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
    assert "of backbone (2): backbone.conv0p1s1.kernel, backbone.bn0.bn.weight" in message
    assert "the file has nothing else" in message
    save_file(stored | {"backbone.bn0.weight": torch.ones(5), "zzz": torch.ones(1)}, path)
    message = refused(build(PLAIN), path, format="mask3d").what
    assert "the file has instead backbone.bn0.weight (5,)" in message
    save_file(backbone(other_weights(build)), path)
    assert "pool.pts_proj1.0.weight" in refused(build(PLAIN), path, format="esam").what


def test_half_of_an_added_part_is_refused(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    stored = other_weights(build, FUSED)
    del stored["bifusion.residual.weight"]
    save_file(stored, path)
    assert "bifusion.residual.weight" in refused(build(FUSED), path, format="ditr").what


def test_weights_of_an_own_part_are_whole_or_not_there_and_named(build: Build, tmp_path: Path) -> None:
    fused = FusionSpec(own=Everywhere())  # type: ignore[call-arg]
    state, path = other_weights(build, fused), tmp_path / "own.safetensors"
    model = build(fused)
    model.load_state_dict(state)
    save_weights(model, path)
    found = describe(path)
    assert (found.format, found.reason) == ("ditr", "it has ditr's own")
    assert {one.group: one.entries for one in found.groups}["own"] == 9
    fresh = build(fused)
    report = load_weights(fresh, path, format="ditr", whole=True)
    assert "own       9 of 9 set" in report.lines()
    assert all(torch.equal(fresh.state_dict()[name], tensor) for name, tensor in state.items())
    with pytest.raises(
        DitrError, match=r"9 entries of the file have no place in it, of own \(9\)|of other \(9\)"
    ) as raised:
        load_weights(build(PLAIN), path, format="ditr", whole=True)
    assert "`fusion`" in raised.value.fix
    save_file({name: tensor for name, tensor in state.items() if name != "own.up.weight"}, path)
    with pytest.raises(DitrError, match=r"are missing, of own \(1\): own.up.weight") as raised:
        load_weights(build(fused), path, format="ditr")
    assert "`fusion`" in raised.value.fix


def test_what_helps_against_another_shape_is_said_and_nothing_else(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "shape.safetensors"
    whole = other_weights(build)
    stored = backbone(whole)
    name = "backbone.conv0p1s1.kernel"
    for odd in (stored[name].repeat(1, 2, 1), stored[name][:27]):  # six channels in, a 3x3x3 stem
        save_file(stored | {name: odd.contiguous()}, path)
        error = refused(build(PLAIN), path, format="mask3d")
        assert f"1 of the file's weights have another shape than the model's: {name} {tuple(odd.shape)}" in error.what
        assert "here (125, 3, 5)" in error.what
        assert "no field of a spec makes these fit" in error.fix
        assert "planes" not in error.fix

    sizes = BackboneSpec(planes=(6, 7, 8, 9, 9, 8, 7, 7), layers=(1,) * 8, stem_channels=6)
    save_file({f"backbone.{name}": tensor for name, tensor in Res16UNet(sizes).state_dict().items()}, path)
    error = refused(build(PLAIN), path, format="mask3d")
    assert "planes [6, 7, 8, 9, 9, 8, 7, 7], layers [1, 1, 1, 1, 1, 1, 1, 1], stem_channels 6" in error.fix

    save_file(whole | {"decoder.out_norm.weight": torch.ones(3)}, path)
    assert "`model.decoder`" in refused(build(PLAIN), path, format="esam").fix
    fused = other_weights(build, FUSED)
    save_file(fused | {"stem.projection.linear.weight": torch.ones(3, 2)}, path)
    assert "`fusion` and `features`" in refused(build(FUSED), path, format="ditr").fix
    save_file(stored, path)
    assert "format to mask3d" in refused(build(PLAIN), path, format="esam").fix


def test_kernels_in_another_layout_are_told_from_those_of_another_size(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "layout.safetensors"
    stored = backbone(other_weights(build))
    reversed_axes = {
        name: tensor.permute(2, 1, 0).contiguous() if tensor.ndim == 3 else tensor for name, tensor in stored.items()
    }
    for permuted in (in_spconv_layout(stored), reversed_axes):
        save_file(permuted, path)
        error = refused(build(PLAIN), path, format="mask3d")
        wrong = [name for name in stored if permuted[name].shape != stored[name].shape]
        assert f"{len(wrong)} of the file's weights have another shape" in error.what
        assert "convert the kernels to MinkowskiEngine's layout: (kernel volume, in, out)" in error.fix

    save_file({name.replace(".kernel", ".weight"): tensor for name, tensor in stored.items()}, path)
    error = refused(build(PLAIN), path, format="mask3d")
    assert "the file has instead backbone.conv0p1s1.weight (125, 3, 5)" in error.what
    assert "under its names" in error.fix


def test_weights_of_ditrs_own_carry_their_digest_wherever_they_are_taken(build: Build, tmp_path: Path) -> None:
    """Damage at every byte of a file is in tests/test_damage.py."""
    path = tmp_path / "model.safetensors"
    save_weights(build(PLAIN), path)
    report = load_weights(build(PLAIN), path, format="ditr", whole=True)
    assert report.checked == "the digest that ditr wrote into it"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # of a weight: still a finite number of the right kind
    path.write_bytes(content)
    assert "does not match the digest in it" in refused(build(PLAIN), path, format="ditr").what
    save_file(build(PLAIN).state_dict(), path)
    assert load_weights(build(PLAIN), path, format="ditr").checked is None


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


@pytest.mark.parametrize("given", ["", "module.", "model.module."])
def test_a_wrong_prefix_names_the_one_in_the_file(given: str, build: Build, tmp_path: Path) -> None:
    path = tmp_path / "prefixed.safetensors"
    save_file({f"model.{name}": tensor for name, tensor in other_weights(build).items()}, path)
    error = refused(build(PLAIN), path, format="esam", key_prefix=given)
    assert "start with 'model.backbone.'" in error.what
    assert 'set checkpoint.key_prefix: "model."' in error.fix
    report = load_weights(build(PLAIN), path, format="esam", key_prefix="model.")
    assert (report.missing, report.unexpected) == ((), ())

    save_file(other_weights(build), path)
    assert "leave checkpoint.key_prefix out" in refused(build(PLAIN), path, format="esam", key_prefix="model.").fix
    save_file({"unet.weight": torch.zeros(2)}, path)
    assert "none is of a backbone" in refused(build(PLAIN), path, format="esam").what


def test_entries_outside_the_prefix_are_left_over_even_under_the_models_names(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "twice.safetensors"
    stored = other_weights(build)
    name = "backbone.bn0.bn.weight"
    save_file({f"model.{one}": tensor for one, tensor in stored.items()} | {name: stored[name] * 9}, path)
    model = build(PLAIN)
    report = load_weights(model, path, format="ditr", key_prefix="model.")
    assert report.unexpected == (name,)
    assert torch.equal(model.state_dict()[name], stored[name])


def test_the_registrys_count_is_checked(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "counted.safetensors"
    stored = other_weights(build, FUSED)
    save_file(stored, path)
    count = sum(name.startswith(("backbone.", "pool.", "decoder.")) for name in stored)
    load_weights(build(FUSED), path, format="ditr", entries=count)
    message = refused(build(FUSED), path, format="ditr", entries=372).what
    assert f"sets {count} entries of the 3D-only model, and its registry entry says 372" in message


def test_an_esam_file_of_another_stage_is_refused(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "online.pth"
    memory = {f"memory.conv.{index}.weight": torch.zeros(2) for index in range(3)} | {"merge_head.bias": torch.zeros(1)}
    torch.save({"state_dict": other_weights(build) | memory}, path)
    error = refused(build(PLAIN), path, format="esam")
    assert "4 entries of the file have no place in it, of memory (3), merge_head (1)" in error.what
    assert load_weights(build(PLAIN), path, format="ditr").unexpected == tuple(memory)


def test_a_whole_model_is_not_taken_for_a_backbone(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "esam.safetensors"
    save_file(other_weights(build), path)
    error = refused(build(PLAIN), path, format="mask3d")
    assert "holds pool and decoder too" in error.what
    assert "checkpoint.format to esam" in error.fix


def test_for_evaluation_every_entry_is_set_and_none_left_over(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(other_weights(build), path)
    assert load_weights(build(PLAIN), path, format="ditr", whole=True).missing == ()
    error = refused(build(FUSED), path, format="ditr", whole=True)
    assert "injection (4), bifusion" in error.what
    assert "would be random" in error.what
    save_file(other_weights(build, FUSED), path)
    assert load_weights(build(FUSED), path, format="ditr", whole=True).missing == ()
    error = refused(build(PLAIN), path, format="ditr", whole=True)
    assert "injection (4), bifusion" in error.what
    assert "`fusion`" in error.fix
    save_file(backbone(other_weights(build)), path)
    assert "pool (13), decoder (78)" in refused(build(PLAIN), path, format="mask3d", whole=True).what


def test_other_precisions_are_converted_and_counted(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    stored = other_weights(build)
    halves = [name for name, tensor in stored.items() if tensor.is_floating_point() and name.startswith("pool.")]
    save_file({name: tensor.half() if name in halves else tensor for name, tensor in stored.items()}, path)
    model = build(PLAIN)
    report = load_weights(model, path, format="esam")
    assert report.converted == {"float16": len(halves)}
    assert report.lines()[-1].split() == ["converted", str(len(halves)), "from", "float16"]
    loaded = model.state_dict()
    assert all(loaded[name].dtype == torch.float32 for name in halves)
    assert all(torch.equal(loaded[name], stored[name].half().float()) for name in halves)

    too_large = {"pool.pts_proj1.0.bias": stored["pool.pts_proj1.0.bias"].double() * 1e300}
    save_file(stored | too_large, path)
    assert "not finite" in refused(build(PLAIN), path, format="esam").what
    save_file(stored | {"pool.pts_proj1.0.bias": torch.zeros(len(stored["pool.pts_proj1.0.bias"])).int()}, path)
    assert "another kind of number" in refused(build(PLAIN), path, format="esam").what
    torch.save(stored | {"pool.pts_proj1.0.bias": stored["pool.pts_proj1.0.bias"].to_sparse()}, tmp_path / "w.pth")
    assert "sparse" in refused(build(PLAIN), tmp_path / "w.pth", format="esam").what


def test_what_is_not_a_tensor_is_no_weight(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "objects.pth"
    torch.save({"state_dict": other_weights(build) | {"pool.note": "text"}}, path)
    assert "1 entries of `state_dict` are not tensors: pool.note" in refused(build(PLAIN), path, format="esam").what
    torch.save({"model": other_weights(build), "epoch": 3}, path)
    assert "no weights; its top level holds model, epoch" in refused(build(PLAIN), path, format="esam").what
