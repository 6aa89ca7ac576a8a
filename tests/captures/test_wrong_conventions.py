"""Captures whose poses or depth are not what is said of them: ``data check`` names the mistake by its likely cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ditr.captures.formats import FORMATS
from ditr.captures.importing import INFOS, import_capture
from ditr.cli.data_check_report import written
from ditr.data.dataset import open_folder
from ditr.data_check.check import CheckReport, check_dataset
from tests.reference import captures
from tests.reference.captures import FLIP, Y_UP, Take, camera, takes

SMALL = camera(160, 120)
Pose = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def shots() -> list[Take]:
    return takes(SMALL, count=4)


def checked(root: Path, out: Path, *, format: str = "rgbd") -> CheckReport:
    done = import_capture(root, out, format=FORMATS[format], seed=0, workers=1)
    return check_dataset(open_folder(out, name="mine", info_files={"val": INFOS}, intrinsics=done.camera))


def transposed(pose: np.ndarray) -> np.ndarray:
    result = pose.copy()
    result[:3, :3] = pose[:3, :3].T
    return result


def in_millimetres(pose: np.ndarray) -> np.ndarray:
    result = pose.copy()
    result[:3, 3] *= 1000
    return result


MISTAKES: dict[str, tuple[Pose, str, tuple[str, ...]]] = {
    "OpenGL axes": (lambda pose: pose @ FLIP, "", ("OpenGL's",)),
    "OpenCV taken for OpenGL": (lambda pose: pose, "axes: opengl\n", ("OpenGL's",)),
    "inverted": (np.linalg.inv, "", ("world to camera",)),
    "taken for inverted": (lambda pose: pose, "poses: world_to_camera\n", ("world to camera",)),
    "inverted, y up": (lambda pose: np.linalg.inv(Y_UP @ pose), "up: y\n", ("world to camera",)),
    "inverted OpenGL": (lambda pose: np.linalg.inv(pose @ FLIP), "", ("world to camera", "OpenGL's")),
    "inverted, and not OpenGL": (np.linalg.inv, "axes: opengl\n", ("world to camera",)),
    "transposed": (transposed, "", ("transposed",)),
    "positions in mm": (in_millimetres, "", ("positions are in millimetres",)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_pose_is_named(name: str, shots: list[Take], tmp_path: Path) -> None:
    change, said, causes = MISTAKES[name]
    captures.rgbd(tmp_path / "room", shots, SMALL, change=change, said=said)
    report = checked(tmp_path / "room", tmp_path / "out")
    (problem,) = report.problems
    assert (problem.kind, problem.effect) == ("pose or depth convention", "refused")
    assert all(cause in problem.examples[0] for cause in causes)
    assert ("OpenGL" in problem.examples[0]) == ("OpenGL's" in causes), "no more is named than is wrong"
    for cause, field in (("OpenGL's", "`axes: opengl`"), ("world to camera", "`poses: world_to_camera`")):
        assert (field in problem.examples[0]) == (cause in causes), "what to write is said"


@pytest.mark.parametrize(
    ("per_m", "times", "fix"),
    [
        (2000, "2 times too large", "multiply depth_per_m in capture.yaml of rgbd by 2 (1000 becomes 2000)"),
        (5000, "5 times too large", "multiply depth_per_m in capture.yaml of rgbd by 5 (1000 becomes 5000)"),
        (6553.5, "6.5535 times too large", "by 6.5535 (1000 becomes 6553.5)"),
        (200, "5 times too small", "divide depth_per_m in capture.yaml of rgbd by 5 (5000 becomes 1000)"),
    ],
)
def test_a_wrong_depth_scale_is_named(per_m: float, times: str, fix: str, shots: list[Take], tmp_path: Path) -> None:
    captures.rgbd(tmp_path / "room", shots, SMALL, per_m=per_m)
    (problem,) = checked(tmp_path / "room", tmp_path / "out").problems
    assert problem.kind == "pose or depth convention"
    assert f"depth is {times}" in problem.examples[0]
    assert fix in problem.examples[0]


@pytest.mark.parametrize(
    ("factor", "said"), [(2, "2 times too large"), (0.5, "2 times too small"), (4 / 3, "1.33 times too large")]
)
def test_intrinsics_of_another_size_are_named(factor: float, said: str, shots: list[Take], tmp_path: Path) -> None:
    captures.rgbd(tmp_path / "room", shots, replace(SMALL, fx=factor * SMALL.fx, fy=factor * SMALL.fy))
    (problem,) = checked(tmp_path / "room", tmp_path / "out").problems
    assert (problem.kind, problem.effect) == ("pose or depth convention", "refused")
    assert f"the focal length is {said}" in problem.examples[0]


def test_frames_that_half_agree_are_told_with_their_share(shots: list[Take], tmp_path: Path) -> None:
    captures.rgbd(tmp_path / "room", shots, replace(SMALL, fx=1.12 * SMALL.fx, fy=1.12 * SMALL.fy))
    report = checked(tmp_path / "room", tmp_path / "out")
    assert 0.3 < report.statistics["val points that a neighbouring frame sees at the same place, share"] < 0.6
    (problem,) = report.problems
    assert (problem.kind, problem.effect) == ("neighbouring frames", "harmless")
    assert "only: camera, depth or poses are off" in problem.examples[0]


def test_small_distances_of_an_import_are_said_to_prove_no_camera(shots: list[Take], tmp_path: Path) -> None:
    captures.rgbd(tmp_path / "room", shots, SMALL)
    report = checked(tmp_path / "room", tmp_path / "out")
    (line,) = (line for line in written(report, imported=True) if "nearest pixel's centre px, max" in line)
    assert "by construction" in line
    assert "by construction" not in "".join(written(report))


def test_depth_in_millimetres_of_a_sequence_that_should_be_tums_is_named(shots: list[Take], tmp_path: Path) -> None:
    captures.tum(tmp_path / "room", shots, SMALL, per_m=1000)
    (problem,) = checked(tmp_path / "room", tmp_path / "out", format="tum").problems
    assert "depth is 5 times too small" in problem.examples[0]


def test_quaternions_of_the_other_order_are_named(shots: list[Take], tmp_path: Path) -> None:
    captures.tum(tmp_path / "room", shots, SMALL, real_first=True)
    (problem,) = checked(tmp_path / "room", tmp_path / "out", format="tum").problems
    assert "quaternions have their real part first" in problem.examples[0]


def test_depth_that_no_room_has_is_told_without_any_pose(shots: list[Take], tmp_path: Path) -> None:
    captures.rgbd(tmp_path / "room", shots, SMALL, change=None, per_m=20)
    (problem,) = checked(tmp_path / "room", tmp_path / "out").problems
    assert (problem.kind, problem.effect) == ("depth scale", "refused")
    assert "too near for a room" in problem.examples[0]


@pytest.mark.parametrize("motion", ["walks", "only turns"])
def test_positions_of_other_places_agree_nowhere_and_no_cause_is_made_up(
    motion: str, shots: list[Take], tmp_path: Path
) -> None:
    """Of a camera that only turned, positions a thousand times too large would explain nearly all."""
    rng = np.random.default_rng(0)

    def elsewhere(pose: np.ndarray) -> np.ndarray:
        moved = pose.copy()
        moved[:3, 3] += rng.uniform(-0.6, 0.6, 3)
        return moved

    if motion == "only turns":
        stays = [take.pose.copy() for take in shots]
        for pose in stays:
            pose[:3, 3] = stays[0][:3, 3]
        shots = takes(SMALL, at=stays)
    captures.rgbd(tmp_path / "room", shots, SMALL, change=elsewhere)
    (problem,) = checked(tmp_path / "room", tmp_path / "out").problems
    assert (problem.kind, problem.effect) == ("neighbouring frames", "harmless")


@pytest.mark.parametrize("noise_m", [0.0, 0.02])
def test_a_right_capture_has_no_problem_and_says_how_well_it_agrees(
    noise_m: float, shots: list[Take], tmp_path: Path
) -> None:
    """Also with the noise of a sensor, and of its poses."""
    rng = np.random.default_rng(0)
    noisy = [
        Take(
            take.pose + np.pad(rng.normal(0, noise_m / 2, (3, 1)), ((0, 1), (3, 0))),
            take.colour,
            take.depth_m + rng.normal(0, noise_m, take.depth_m.shape) * (take.depth_m > 0),
        )
        for take in shots
    ]
    captures.rgbd(tmp_path / "room", noisy, SMALL)
    report = checked(tmp_path / "room", tmp_path / "out")
    assert report.problems == ()
    assert report.statistics["val points that a neighbouring frame sees at the same place, share"] > 0.75


def test_a_pose_file_that_is_not_the_frames_is_found(shots: list[Take], tmp_path: Path) -> None:
    captures.rgbd(tmp_path / "room", shots, SMALL)
    done = import_capture(tmp_path / "room", tmp_path / "out", format=FORMATS["rgbd"], seed=0, workers=1)
    folder = tmp_path / "out/2D/room/pose"
    (folder / "1.txt").write_text((folder / "0.txt").read_text())
    (folder / "2.txt").write_text("1 2 3")
    dataset = open_folder(tmp_path / "out", name="mine", info_files={"val": INFOS}, intrinsics=done.camera)
    found = {problem.kind: problem for problem in check_dataset(dataset).problems}
    assert (found["world pose"].count, found["world pose"].effect) == (2, "harmless")
