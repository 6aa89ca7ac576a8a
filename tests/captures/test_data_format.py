"""docs/data_format.md holds: its example is run and passes the check, its tables and options are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ditr.captures.formats import FORMATS
from ditr.captures.formats.rgbd import CaptureFile
from ditr.cli.main import app
from ditr.data.class_table import own_classes
from ditr.data.dataset import open_dataset
from ditr.spec.explain import check
from ditr.spec.registry import Registry
from ditr.spec.yaml_text import read_yaml
from tests.reference import captures
from tests.reference.captures import takes

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/data_format.md").read_text()


def block(language: str, *, holding: str) -> str:
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if holding in text]
    return str(found)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ditr.toml").write_text("")
    (tmp_path / "registry/datasets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_writes_a_frame_that_passes_the_check(project: Path) -> None:
    entry, code = block("yaml", holding="kind: folder"), block("python", holding="my_frame")
    (project / "registry/datasets/mine.yaml").write_text(entry)
    camera = open_registered_camera()
    (take,) = takes(camera, count=1)
    frame = (take.colour, take.depth_m.astype(np.float64), take.pose, (camera.fx, camera.fy, camera.cx, camera.cy))
    exec(compile(code, "docs/data_format.md", "exec"), {"my_frame": lambda: frame})
    assert len(code.splitlines()) < 25
    checked = CliRunner().invoke(app, ["data", "check", "mine"])
    assert checked.exit_code == 0, checked.output
    assert "no problems" in checked.output
    dataset = open_dataset("mine", registry=Registry())
    assert np.abs(dataset.val.points(0)[:, :3].mean(axis=0)).max() < 1e-3


def open_registered_camera():
    from ditr.geometry.camera import Intrinsics

    entry = Registry().dataset("mine")
    return Intrinsics(**entry.intrinsics.model_dump())  # type: ignore[union-attr]


def test_the_capture_file_is_one(project: Path) -> None:
    path = project / "capture.yaml"
    path.write_text(block("yaml", holding="depth_per_m"))
    source = read_yaml(path)
    assert source.value is not None
    said, problems = check(source.value, CaptureFile)
    assert (problems, source.problems) == ([], [])
    shown = {key for key in CaptureFile.model_fields if f"{key}:" in path.read_text()}
    assert shown == set(CaptureFile.model_fields) - {"depth_intrinsics"}
    for key in ("poses", "axes", "up"):
        field = CaptureFile.model_fields[key]
        assert getattr(said, key) == field.default, "the defaults are those that are shown"
        for choice in field.annotation.__args__:  # type: ignore[union-attr]
            assert str(choice) in path.read_text()


def test_the_classes_are_an_entrys(project: Path) -> None:
    entry = block("yaml", holding="kind: folder") + block("yaml", holding="robot")
    (project / "registry/datasets/mine.yaml").write_text(entry)
    found = Registry().dataset("mine")
    assert own_classes(found.classes, stuff=found.stuff).things == ("robot", "crate")  # type: ignore[union-attr]


def test_every_format_and_what_it_is_known_by_is_in_the_table() -> None:
    rows = {row.split("`")[1]: row for row in TEXT.splitlines() if row.startswith("| `") and row.count("|") == 4}
    for format in FORMATS.values():
        words = " ".join(rows[format.name].split())
        for mark in format.marks:
            assert mark.partition("/")[0].rstrip("*") in words, f"{format.name}: {mark}"


def test_a_file_written_by_hand_is_in_the_table_of_files(project: Path) -> None:
    """What an import leaves is what the table says, and nothing else."""
    captures.rgbd(project / "kitchen", takes(captures.camera(160, 120), count=1), captures.camera(160, 120))
    done = CliRunner().invoke(app, ["data", "import", "rgbd", str(project / "kitchen"), "mine", "--workers", "1"])
    assert done.exit_code == 0, done.output
    rows = re.findall(r"^\| `([^`]+)` \|", TEXT[TEXT.index("## Files") : TEXT.index("## An example")], re.MULTILINE)
    root = open_dataset("mine", registry=Registry()).root
    listed = {row.replace("<id>", "kitchen_0").replace("<scene>", "kitchen").replace("<number>", "0") for row in rows}
    listed = {name.replace("color/0.jpg", "color/0.png") for name in listed}
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    labels = {"instance_mask/kitchen_0.bin", "semantic_mask/kitchen_0.bin"}
    assert left - {"val.pkl", "prepared.json", ".prepare.lock"} == listed - labels
