"""Maps that somebody else computed: read as they are, or refused with the frame and the file."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ditr.catalog import locate_maps
from ditr.errors import Code, DitrError
from ditr.features.precomputed_maps import PrecomputedMaps
from ditr.geometry.sampling import sample_map
from ditr.spec.entries import PointsEntry, PrecomputedEntry
from ditr.spec.feature_maps import map_covers, map_shape
from ditr.spec.models import FeatureSpec
from ditr.spec.registry import Registry

ENTRY = PrecomputedEntry(
    kind="precomputed", path="maps", channels=2, rows=3, columns=4, covers=(42, 56), licence="none"
)
MAP = torch.arange(24.0).reshape(2, 3, 4)
FRAME = "scene0000_01_200"


def save(folder: Path, content: object = MAP, *, frame: str = FRAME) -> Path:
    scene, _, number = frame.rpartition("_")
    path = folder / scene / f"{number}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def entry_with(**changes: object) -> PrecomputedEntry:
    return ENTRY.model_copy(update=changes)


@pytest.mark.parametrize(
    "form",
    [
        MAP.clone,
        lambda: MAP.half(),
        lambda: MAP[None],
        lambda: {"pix": MAP.half()},
        lambda: {"pix": MAP[None], "global": torch.ones(7)},
        lambda: MAP.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        lambda: MAP.clone().requires_grad_(),
    ],
    ids=["float32", "float16", "batch of one", "dict", "dict and batch", "strides", "gradients"],
)
def test_every_form_of_a_map_is_the_same_float16_map(form: Callable[[], object], tmp_path: Path) -> None:
    save(tmp_path, form())
    read = PrecomputedMaps(tmp_path, entry=ENTRY).read(FRAME)
    assert read.dtype == torch.float16
    assert read.is_contiguous()
    assert not read.requires_grad
    assert torch.equal(read, MAP.half())


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploited"),))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MAP.transpose(1, 2), r"is \(2, 4, 3\), not \(2, 3, 4\) as its registry entry says"),
        (torch.stack([MAP, MAP]), r"is \(2, 2, 3, 4\)"),
        (MAP.int(), "neither a tensor of floats nor a dict"),
        ({"global": MAP}, 'nor a dict that has one at "pix"'),
        ([MAP], "neither a tensor"),
        (MAP.where(MAP != 5, torch.nan), "not finite"),
        (MAP * 1e5, "not finite in float16"),
        (Exploit(), "cannot be read"),
        ({"pix": MAP, "more": Exploit()}, "cannot be read"),
    ],
    ids=["transposed", "two", "integers", "other key", "list", "nan", "overflow", "pickle", "pickle inside"],
)
def test_an_unusable_map_is_an_error_that_names_frame_and_file(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, content)
    with pytest.raises(DitrError, match=message) as raised:
        PrecomputedMaps(tmp_path, entry=ENTRY).read(FRAME)
    assert raised.value.code == Code.FEATURES
    assert raised.value.where == f"frame {FRAME}: {path}"
    assert not (tmp_path / "exploited").exists()


def test_a_truncated_damaged_or_missing_map_is_an_error(tmp_path: Path) -> None:
    """Damage at every byte of a map is in tests/test_damage.py."""
    maps = PrecomputedMaps(tmp_path, entry=ENTRY)
    path = save(tmp_path)
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[:-100])
    with pytest.raises(DitrError, match="cannot be read"):
        maps.read(FRAME)
    whole[whole.index(MAP.numpy().tobytes()) + 42] ^= 1  # a value changes by half an ulp or so
    path.write_bytes(whole)
    with pytest.raises(DitrError, match="does not match its checksum"):
        maps.read(FRAME)
    torch.save(MAP, path, _use_new_zipfile_serialization=False)
    with pytest.raises(DitrError, match=r"no zip archive, as torch writes since 1\.6") as raised:
        maps.read(FRAME)
    assert "weights_only" not in str(raised.value)
    path.unlink()
    with pytest.raises(DitrError, match="there is no precomputed 2D feature map of this frame"):
        maps.read(FRAME)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("{scene}/{number}.pt", "scene0000_01/200.pt"),
        ("{id}.pt", "scene0000_01_200.pt"),
        ("{scene}/color/{number:0>6}.pt", "scene0000_01/color/000200.pt"),
    ],
)
def test_the_template_says_where_a_frames_map_is(files: str, expected: str, tmp_path: Path) -> None:
    assert PrecomputedMaps(tmp_path, entry=entry_with(files=files)).path(FRAME) == tmp_path / expected


@pytest.mark.parametrize(
    "files",
    [
        "../{id}.pt",
        "{scene}/../../{number}.pt",
        "/etc/{id}.pt",
        "map.pt",
        "{scene}.pt",
        "{frame}.pt",
        "{id.__class__}.pt",
        "{0}.pt",
        "{id",
        "",
    ],
)
def test_a_template_that_leads_out_of_the_folder_or_nowhere_is_refused(files: str, tmp_path: Path) -> None:
    with pytest.raises(DitrError) as raised:
        PrecomputedMaps(tmp_path, entry=entry_with(files=files))
    assert raised.value.code == Code.REGISTRY
    assert f"files: {files}" in raised.value.what


def test_a_frame_whose_id_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    maps = PrecomputedMaps(tmp_path / "maps", entry=ENTRY)
    save(tmp_path / "secret", frame="a_0")
    with pytest.raises(DitrError, match="leads out of the folder"):
        maps.read("../secret/a_0")


def test_missing_maps_are_found_and_told_at_once(tmp_path: Path) -> None:
    ids = ["scene0000_01_0", FRAME, "scene0000_02_0", "scene0000_01_400"]
    save(tmp_path)
    maps = PrecomputedMaps(tmp_path, entry=ENTRY)
    assert maps.missing(ids) == [ids[0], ids[2], ids[3]]
    with pytest.raises(DitrError, match="and 2 more frames have none") as raised:
        maps.require(ids)
    assert ids[0] in raised.value.where
    maps.require([FRAME])


def test_workers_get_the_same_maps(tmp_path: Path) -> None:
    save(tmp_path)
    maps = pickle.loads(pickle.dumps(PrecomputedMaps(tmp_path, entry=ENTRY, frame_ids=[FRAME])))
    assert torch.equal(maps.read(FRAME), MAP.half())


def test_the_manifest_tells_other_maps_apart(tmp_path: Path) -> None:
    ids = [f"scene0000_00_{number}" for number in range(200)]
    for frame in ids:
        save(tmp_path, frame=frame)

    def digest(read: list[str]) -> Any:
        manifest = PrecomputedMaps(tmp_path, entry=ENTRY, frame_ids=read).manifest()
        assert manifest["shape"] == [2, 3, 4]
        assert manifest["weights_digest"] is None
        return manifest["maps_digest"]

    before = digest(ids)
    save(tmp_path, MAP + 1, frame="scene0000_01_0")  # not among those that are read
    assert digest(ids) == before != digest(ids[:4])
    other = MAP.clone()
    other[1, 2, 3] += 2**-10
    for frame in (ids[3], ids[57], ids[199]):  # whichever map it is, of the same size as before
        save(tmp_path, other, frame=frame)
        assert digest(ids) != before
        save(tmp_path, frame=frame)
        assert digest(ids) == before
    (tmp_path / "scene0000_00" / "5.pt").write_bytes(b"no map")
    with pytest.raises(DitrError, match="cannot be read"):
        digest(ids)


def test_the_folder_is_below_that_of_the_data_set_or_absolute(tmp_path: Path) -> None:
    assert locate_maps(ENTRY, dataset_root=tmp_path) == tmp_path / "maps"
    assert locate_maps(entry_with(path="/disk/maps"), dataset_root=tmp_path) == Path("/disk/maps")


@pytest.mark.parametrize(("name", "cell"), [("precomputed_clip_rn50", 8), ("precomputed_dinov2_vitl14", 14)])
def test_points_read_the_cell_that_their_pixel_lies_in(name: str, cell: int, tmp_path: Path) -> None:
    # The legacy folders: at stride 8 over the image, and patches of 14 over the image padded to 490x644, of which the
    # last rows and columns lie outside the image.
    entry = Registry().features(name)
    assert isinstance(entry, PrecomputedEntry)
    spec = FeatureSpec(source=name)
    channels, rows, columns = map_shape(spec, entry)
    tokens = torch.zeros(channels, rows, columns)
    tokens[0], tokens[1] = torch.arange(rows)[:, None], torch.arange(columns)
    save(tmp_path, {"pix": tokens.half()}, frame="scene0000_00_0")
    read = PrecomputedMaps(tmp_path, entry=entry).read("scene0000_00_0")
    uv = torch.cartesian_prod(torch.arange(640.0), torch.arange(480.0))
    covers = map_covers(spec, entry)
    assert covers is not None
    found = sample_map(read[:2], uv, map_hw=covers, mode="nearest").long()
    assert torch.equal(found, (uv.flip(1) / cell).floor().long())


# Features of points

ROWS = np.arange(15, dtype=np.float32).reshape(5, 3)
POINTS = PointsEntry(kind="points", path="points", files="{id}.npy", channels=3)
TENSORS = POINTS.model_copy(update={"files": "{id}.pt"})


@pytest.mark.parametrize("entry", [POINTS, TENSORS], ids=["npy", "pt"])
def test_features_of_points_are_a_map_with_a_column_for_each(entry: PointsEntry, tmp_path: Path) -> None:
    path = tmp_path / f"{FRAME}{Path(entry.files).suffix}"
    np.save(path, ROWS) if entry is POINTS else torch.save({"pix": torch.from_numpy(ROWS)}, path)
    maps = PrecomputedMaps(tmp_path, entry=entry, frame_ids=[FRAME])
    read = maps.read(FRAME)
    assert read.dtype == torch.float16
    assert torch.equal(read[:, 0].T, torch.from_numpy(ROWS).half())
    before = maps.digest()
    np.save(path, ROWS + 1) if entry is POINTS else torch.save(torch.from_numpy(ROWS + 1), path)
    assert maps.digest() != before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:, :2], r"the precomputed feature table is \(5, 2\), not \(N, 3\) as its registry entry says"),
        (ROWS[None], r"is \(1, 5, 3\), not \(N, 3\)"),
        (ROWS.astype(int), "neither a tensor of floats nor a dict"),
        (ROWS * 1e5, "not finite in float16"),
        (np.array([Path("x")]), "cannot be read"),
    ],
    ids=["channels", "batch", "integers", "overflow", "objects"],
)
def test_an_unusable_table_of_features_is_an_error(rows: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / f"{FRAME}.npy", rows)
    with pytest.raises(DitrError, match=message) as raised:
        PrecomputedMaps(tmp_path, entry=POINTS).read(FRAME)
    assert raised.value.where == f"frame {FRAME}: {tmp_path / f'{FRAME}.npy'}"
    assert "rows or columns" not in raised.value.fix


def test_a_cut_off_table_of_features_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / f"{FRAME}.npy"
    np.save(path, ROWS)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DitrError, match="cannot be read"):
        PrecomputedMaps(tmp_path, entry=POINTS).read(FRAME)
