"""``ditr checkpoint``: what a file is, what to write into a spec for it, and one message for what is no weight file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from ditr import paths
from ditr.catalog import locate_checkpoint, sha256_of
from ditr.cli.main import app, main
from ditr.errors import DitrError
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry
from tests.reference.esam_checkpoint import backbone_state, mask3d_left_overs, write_lightning

MINI = paths.registry_dirs()[0] / "checkpoints" / "synthrooms_res16unet_mini.safetensors"


@pytest.fixture
def ditr() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_file_of_the_registry_is_known_by_its_digest(ditr: Callable[..., Result]) -> None:
    result = ditr("checkpoint", "inspect", MINI)
    assert result.exit_code == 0, result.output
    assert "this is synthrooms_res16unet_mini, by its sha256" in result.output
    assert sha256_of(MINI) in result.output
    assert "planes [16, 32, 48, 64, 64, 48, 32, 32]" in result.output
    assert "every entry of the backbone is there, in its shape" in result.output
    rows = [line.split()[:3] for line in result.output.splitlines()]
    assert ["backbone", "192", "1,097,104"] in rows
    assert ["in", "all", "283"] in rows
    assert "whole     by its pinned sha256" in result.output


def test_a_file_that_nothing_vouches_for_is_said_to_be_so(ditr: Callable[..., Result], tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    result = ditr("checkpoint", "inspect", tmp_path / "foreign.safetensors")
    assert "whole     by nothing in the file: pin its sha256" in result.output


def test_what_it_prints_for_a_spec_is_a_spec_that_fits(ditr: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_lightning(path, state=backbone_state(seed=0) | mask3d_left_overs(seed=1))
    result = ditr("checkpoint", "inspect", path)
    assert result.exit_code == 0, result.output
    assert "its shapes would fit mask3d_scannet200 (which pins no sha256)" in result.output
    assert "every entry of the backbone is there, in its shape; pool and decoder start fresh" in result.output
    snippet = result.output.partition("in a spec\n")[2]
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: mine\ndataset: {name: synthrooms_tiny}\n" + "\n".join(x[2:] for x in snippet.splitlines()))
    loaded = load_spec(spec, registry=Registry()).spec
    assert loaded.checkpoint is not None
    assert loaded.checkpoint.kind == "file"
    assert (loaded.checkpoint.path, loaded.checkpoint.format) == (str(path), "mask3d")
    assert loaded.checkpoint.key_prefix == "model."
    assert locate_checkpoint(loaded.checkpoint, registry=Registry()).pinned
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DitrError, match="not the file that the spec pins"):
        locate_checkpoint(loaded.checkpoint, registry=Registry())
    assert loaded.model.backbone.planes == (32, 64, 128, 256, 256, 128, 96, 96)


def test_weights_of_something_else_are_told(ditr: Callable[..., Result], tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.full((2, 3), torch.inf)}, tmp_path / "vit.pth")
    result = ditr("checkpoint", "inspect", tmp_path / "vit.pth")
    assert result.exit_code == 0, result.output
    assert "none of mask3d, esam, ditr" in result.output
    assert "refused: 1 entries hold NaN or infinite values" in result.output
    assert "in a spec" not in result.output


def test_an_entry_of_another_shape_is_named(ditr: Callable[..., Result], tmp_path: Path) -> None:
    state = load_file(MINI)
    state["backbone.conv0p1s1.kernel"] = torch.ones(125, 6, 16)
    torch.save(state, tmp_path / "in6.pth")
    said = ditr("checkpoint", "inspect", tmp_path / "in6.pth").output
    assert "refused: 1 of the file's weights have another shape" in said
    assert "backbone.conv0p1s1.kernel (125, 6, 16), here (125, 3, 16)" in said
    assert "no field of a spec makes these fit" in said
    assert "in a spec\n" not in said


def test_a_bad_file_is_one_message(
    ditr: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.pth").write_bytes(b"<html>not found</html>")
    for path in (tmp_path / "w.pth", tmp_path / "none.pth"):
        assert isinstance(ditr("checkpoint", "inspect", path).exception, DitrError)
    torch.save({"state_dict": {}, "hook": os.system}, tmp_path / "w.pth")
    monkeypatch.setattr(sys, "argv", ["ditr", "checkpoint", "inspect", str(tmp_path / "w.pth")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "posix.system" in said.err


def test_ls_says_what_is_here_and_where_to_get_the_rest(ditr: Callable[..., Result]) -> None:
    lines = ditr("checkpoint", "ls").output.splitlines()
    rows = {line.split()[0]: line for line in lines[1:]}
    assert rows.keys() == set(Registry().names("checkpoints"))
    assert "here" in rows["synthrooms_res16unet_mini"]
    assert "missing" in rows["mask3d_scannet200"]
    assert "https://" in rows["mask3d_scannet200"]
