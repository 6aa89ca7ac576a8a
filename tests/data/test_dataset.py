from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from ditr.data.dataset import open_dataset, open_folder
from ditr.data.info_pickle import read_infos, write_infos
from ditr.data.scannet_sv import INFO_FILES
from ditr.errors import DitrError
from ditr.spec.registry import Registry


def test_an_embedded_set_that_is_not_made_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DITR_CACHE", str(tmp_path))
    with pytest.raises(DitrError, match="ditr data make synthrooms_tiny"):
        open_dataset("synthrooms_tiny", registry=Registry())


def test_a_missing_folder_says_where_it_is_looked_for_and_what_to_run_instead(tmp_path, monkeypatch):
    monkeypatch.setenv("DITR_DATA", str(tmp_path / "mine"))
    with pytest.raises(DitrError) as caught:
        open_dataset("scannet200_sv", registry=Registry())
    text = str(caught.value)
    assert str(tmp_path / "mine/scannet200-sv") in text
    assert "DITR_DATA" in text
    assert "registry/datasets/scannet200_sv.yaml" in text
    assert "ditr run specs/fpn_inject.yaml" in text


def test_an_incomplete_folder_names_the_file_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("DITR_DATA", str(tmp_path))
    (tmp_path / "scannet200-sv").mkdir()
    with pytest.raises(DitrError, match="lacks scannet200_sv_oneformer3d_infos_train"):
        open_dataset("scannet200_sv", registry=Registry())


def test_one_reader_serves_a_folder_of_the_user(tiny_dataset, tmp_path, monkeypatch):
    """The embedded set, moved to where ScanNet200-SV is looked for, is read as if it were that."""
    monkeypatch.setenv("DITR_DATA", str(tmp_path))
    shutil.copytree(tiny_dataset.root, tmp_path / "scannet200-sv")
    (tmp_path / "scannet200-sv/manifest.json").unlink()
    opened = open_dataset("scannet200_sv", registry=Registry())
    assert opened.train.ids == tiny_dataset.train.ids
    assert opened.train.frame(0).points.shape == (20_000, 6)
    before = opened.digest
    assert len(before) == 32
    (tmp_path / "scannet200-sv/2D/scene9001_00/color/0.jpg").write_bytes(b"another")
    changed = open_folder(opened.root, name="scannet200_sv").digest
    assert changed != before
    # A second preparation writes other points and superpoints into files of the same size.
    superpoints = tmp_path / "scannet200-sv/super_points" / f"{opened.val.ids[0]}.bin"
    superpoints.write_bytes(bytes(reversed(superpoints.read_bytes())))
    assert open_folder(opened.root, name="scannet200_sv").digest != changed


def test_a_frame_in_both_splits_is_refused(tiny_dataset, tmp_path):
    """Its score would be one on frames that were trained on."""
    shutil.copytree(tiny_dataset.root, tmp_path / "set")
    train, val = (tmp_path / "set" / file for file in INFO_FILES.values())
    infos = read_infos(val)
    write_infos(val, replace(infos, frames=(*infos.frames, read_infos(train).frames[0])))
    with pytest.raises(DitrError, match="1 of its 3 frames are in the training split too"):
        open_folder(tmp_path / "set", name="set")
