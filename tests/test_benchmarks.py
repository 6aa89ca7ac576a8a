"""Benchmarks on a machine without a GPU: a message instead of a traceback, and those that need none run."""

from __future__ import annotations

import importlib

import pytest
import torch

from benchmarks import evaluator


@pytest.mark.parametrize("name", ["step", "ranks", "evaluation", "heads", "memory", "extraction"])
def test_a_gpu_that_torch_does_not_see_is_said(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _refusal(name, "--device", "cuda", monkeypatch=monkeypatch, capsys=capsys)
    assert "argument --device: torch sees no CUDA device; `ditr doctor` says what is there" in said


def test_tiles_need_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refusal("tiles", monkeypatch=monkeypatch, capsys=capsys)
    assert "its kernels run on GPUs alone and the device is the CPU" in said


def test_precision_without_runs_says_how_to_make_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _refusal("precision", monkeypatch=monkeypatch, capsys=capsys)
    assert "`ditr run specs/precision/*.yaml` makes them" in said


def test_both_evaluators_agree_on_what_the_benchmark_makes() -> None:
    evaluator.compare(evaluator.Size(points=2000, instances=4, predictions=12), count=2)


def _refusal(name: str, *words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a benchmark says that refuses, where torch sees no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", [name, *words])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{name}").main()
    assert ended.value.code == 2
    return capsys.readouterr().err
