"""What it costs to hold every file of a frame, and of a record, against its digest while it is read.

``python -m benchmarks.digests`` prints milliseconds a frame of 20,000 points from the page cache, without and with
digests of all bytes, of digests of 64 KiB a file alone, and what it takes to read the results of a folder of records.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import xxhash

from benchmarks.frames import generated_frames
from ditr.data.scannet_sv import FrameSet
from ditr.data_check.frame_check import check_frame
from ditr.record.folder import Record, records_in
from ditr.record.views.rows import result_row
from ditr.report.arms import all_arms

_SAMPLE_BYTES = 2**16
_LAYOUTS = Path(__file__).resolve().parents[1] / "tests" / "record" / "layouts"


def main() -> None:
    """Prints a row a way of reading."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digests", description=__doc__)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--records", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        frames = generated_frames(Path(folder) / "rooms", count=asked.frames, workers=1)
        checked = frames.with_contents({findings.id: findings.files for findings in _checked(frames)})
        ways: dict[str, Callable[[], None]] = {
            "frame, not checked": lambda: _read(frames, images=False),
            "frame, all bytes": lambda: _read(checked, images=False),
            "frame and image, not checked": lambda: _read(frames, images=True),
            "frame and image, all bytes": lambda: _read(checked, images=True),
            "digests of a sample alone": lambda: _sample(frames),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.rounds):  # in turn, so that what else the machine does is shared
            for name, read in ways.items():
                began = time.perf_counter()
                read()
                took[name].append(time.perf_counter() - began)
        for name, seconds in took.items():
            print(f"{name:32}{1e3 * median(seconds) / len(frames):8.3f} ms a frame")
    for layout in sorted(_LAYOUTS.glob("[0-9]*")):
        with tempfile.TemporaryDirectory() as folder:
            runs = _copies(layout, Path(folder), count=asked.records)
            for name, read_all in (("result_row", _rows), ("all_arms", lambda runs: all_arms(runs))):
                seconds = []
                for _ in range(3):
                    began = time.perf_counter()
                    read_all(runs)
                    seconds.append(time.perf_counter() - began)
                print(f"{asked.records} records of layout {layout.name}, {name:12}{1e3 * min(seconds):9.1f} ms")


def _checked(frames: FrameSet):  # type: ignore[no-untyped-def]
    return [check_frame(frames, index) for index in range(len(frames))]


def _read(frames: FrameSet, *, images: bool) -> None:
    for index in range(len(frames)):
        frames.frame(index)
        if images:
            frames.image(index)


def _sample(frames: FrameSet) -> None:
    for index in range(len(frames)):
        for path in frames.paths(index).values():
            xxhash.xxh3_128_hexdigest(path.read_bytes()[:_SAMPLE_BYTES])


def _copies(layout: Path, folder: Path, *, count: int) -> Path:
    (run,) = layout.glob("*-s0-*")
    for number in range(count):
        shutil.copytree(run, folder / f"copy{number}-s0-{number:010}")
    return folder


def _rows(runs: Path) -> None:
    for record in records_in(runs):
        result_row(Record(record.path))


if __name__ == "__main__":
    main()
