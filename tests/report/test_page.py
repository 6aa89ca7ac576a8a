"""The report as a browser gets it: everything in one page, nothing asked of anybody, nothing taken for markup."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditr.data.frame_view import FrameView, MapColours, Prediction, save_view
from ditr.record.folder import Record
from ditr.report.arms import all_arms
from ditr.report.compare import compare
from ditr.report.page import report_page
from ditr.report.stratum_contrasts import by_stratum
from tests.reference.finished_runs import Make, finish_anew

SECTIONS = ["The questions", "The arms", "Differences", "Where it helps", "Training", "Precision and recall", "Frames"]
SECTIONS += ["Cost and benefit", "Specs", "Provenance"]
LOADS = {"src", "href", "srcset", "data", "action", "poster"}


class Page(HTMLParser):
    """What of a page a browser would fetch, and its words outside of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.headings: list[str] = []
        self.images = 0
        self.tags: list[str] = []
        self._within: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in LOADS]
        self.images += tag == "img"
        if tag not in ("img", "meta", "link", "br"):
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._within.pop() == tag, f"{tag} ends where something else is open"

    def handle_data(self, data: str) -> None:
        if self._within and self._within[-1] == "h2":
            self.headings.append(data)
        if "script" not in self._within and "style" not in self._within:
            self.words.append(data)


def page_of(runs: Path) -> str:
    arms = all_arms(runs)
    comparison = compare(arms, metric="ap50", resamples=50)
    return report_page(
        comparison, parts=by_stratum(arms.found, reference=comparison.reference, metric="ap50", resamples=50)
    )


def keep_a_frame(runs: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), 90, dtype=np.uint8)).save(file, "PNG")
    truth = np.array([0] * 20 + [1] * 20 + [-1] * 8)
    view = FrameView(
        frame_id="scene0000_00_0",
        image=np.full((24, 32, 3), 90, dtype=np.uint8),
        uv=np.stack([np.arange(48) % 32, np.arange(48) // 2], axis=1).astype(np.float32),
        uv_valid=np.ones(48, dtype=bool),
        instance_of_point=truth,
        prediction=Prediction(
            of_point=np.where(truth == 0, 0, -1), scores=np.array([1.0], dtype=np.float32), partner=np.array([0])
        ),
        features=MapColours(of_tokens=np.zeros((3, 4, 3), dtype=np.uint8), covers_hw=(24, 32)),
    )
    for folder in runs.glob("*-s0-*"):
        save_view(view, folder / "kept", image_file=file.getvalue())


def test_the_page_holds_everything_and_loads_nothing(runs: Path, make: Make) -> None:
    make("baseline.yaml", chance=0.3)
    make("bifusion.yaml", chance=0.9)
    for folder in runs.iterdir():
        (folder / "metrics.jsonl").write_text(
            '{"step": 24, "at": 1.0, "metrics": {"val/ap50": 0.4, "epoch/loss": 3.0}}\n'
        )
        finish_anew(Record(folder))
    keep_a_frame(runs)
    html = page_of(runs)
    page = Page(html)
    assert page.headings == SECTIONS
    assert all(load.startswith(("#", "data:")) for load in page.loads), "no request leaves the page"
    assert page.images == 5, "the image, its features, the truth, and what each of two arms found"
    assert "bifusion: 1 of 2 found, 50% of their points right" in page.words
    drawn = re.findall(r'Plotly\.newPlot\(\s*"[^"]+",\s*(\[.*?\]),\s*\{', html, re.DOTALL)
    assert len(drawn) >= 6
    assert all('"type":"scatter"' in one or '"type":"bar"' in one for one in drawn), "no figure is empty"
    assert "whole spec" in html
    assert "da7a" in html


def test_what_is_missing_is_said(runs: Path, make: Make) -> None:
    make("baseline.yaml", seeds=1)
    words = " ".join(Page(page_of(runs)).words)
    assert "There is one arm, so nothing to compare it with." in words
    assert "The runs kept no frames in common" in words
    assert "an arm has fewer than three seeds" in words
    assert "Not known of every arm: frame, ms, memory, MiB." in words


def test_what_specs_say_is_text_not_markup(runs: Path, make: Make) -> None:
    make("baseline.yaml", "description=<script>alert(1)</script> & </pre>", seeds=1)
    html = page_of(runs)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


@pytest.mark.parametrize("module", ["page", "gallery", "plots", "notebook"])
def test_no_part_of_the_report_needs_torch(module: str) -> None:
    import subprocess
    import sys

    from ditr.paths import project_dir

    code = f"import ditr.report.{module}, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project_dir())
