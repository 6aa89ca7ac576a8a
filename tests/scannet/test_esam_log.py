from __future__ import annotations

import json
import math
import random
from datetime import datetime
from pathlib import Path

import pytest

from ditr.errors import Code, DitrError
from ditr.scannet.esam_log import EsamLog, read_esam_log
from tests.reference.mmengine_log import Training, scalars, text_log

BEGAN = datetime(2025, 7, 6, 20, 59, 52)
SHORT = Training(epochs=4, iterations=230, validations={2: (0.2, 0.4, 0.6), 4: (0.3, 0.5, 0.7)})
ROUNDED = 5e-5
"""What four decimals lose."""


def read(tmp_path: Path, text: str) -> EsamLog:
    file = tmp_path / "log"
    file.write_text(text)
    return read_esam_log(file)


def steps(log: EsamLog) -> list[int]:
    return [window.step for window in log.windows]


def validated(log: EsamLog) -> list[tuple[int | None, int, float]]:
    return [(one.epoch, log.step_of(one), one.values["all_ap_50%"]) for one in log.validations]


@pytest.fixture(scope="module")
def baseline() -> Training:
    """The size of ESAM's training, with as many windows without a loss as its log has (docs/reference/esam.md, NaN)."""
    blind = random.Random(7).sample(Training().windows(), 1053)
    scores = (0.6242838507, 0.8149124587, 0.9101720915)
    return Training(nan_inst=set(blind), nan_seg=set(blind[:14]), validations={128: scores})


@pytest.mark.parametrize(("write", "kind", "lost"), [("text", "text log", ROUNDED), ("scalars", "scalars", 0.0)])
def test_a_whole_training_is_read_from_either_file(
    baseline: Training, tmp_path: Path, write: str, kind: str, lost: float
) -> None:
    log = read(tmp_path, text_log(baseline, began=BEGAN) if write == "text" else scalars(baseline))
    assert log.kind == kind
    assert (log.cut, log.superseded, log.sessions) == (0, 0, 1)
    assert (log.steps_per_epoch, log.epochs_done) == (626, 128)
    assert steps(log) == [(epoch - 1) * 626 + iteration for epoch, iteration in baseline.windows()]
    for window, (epoch, iteration) in zip(log.windows, baseline.windows(), strict=True):
        written = baseline.window(epoch, iteration)
        assert window.epoch == epoch
        for name in ("loss", "inst_loss", "seg_loss", "grad_norm", "time", "data_time", "memory"):
            assert window.values[name] == pytest.approx(written[name], abs=lost * 1.01, rel=1e-12, nan_ok=True)
        assert window.values["lr"] == pytest.approx(written["lr"], rel=lost * 1.01, abs=0)
    assert sum(math.isnan(window.values["inst_loss"]) for window in log.windows) == 1053
    assert validated(log) == [(128, 128 * 626, pytest.approx(0.8149124587, abs=lost * 1.01))]


def test_the_head_of_a_text_log_says_where_and_from_what(tmp_path: Path) -> None:
    log = read(tmp_path, text_log(SHORT, began=BEGAN))
    assert log.facts == {
        "experiment": "ESAM_sv_scannet200_CA_20250706_205952",
        "load_from": "work_dirs/tmp/mask3d_scannet200.pth",
        "max_epochs": "4",  # of the training, not of the model
        "batch_size": "16",  # not of the validation
        "device": "NVIDIA GeForce RTX 4090",
        "gpus": "1",
        "torch": "1.13.1+cu116",
    }, "numpy's seed is not the training's"
    assert log.started == BEGAN
    assert log.validations[0].batches == 2780


def test_scalars_say_nothing_of_it(tmp_path: Path) -> None:
    log = read(tmp_path, scalars(SHORT))
    assert log.facts == {}
    assert log.started is None
    every_iteration = [SHORT.window(*window)["time"] for window in SHORT.windows()]
    assert log.seconds == pytest.approx(
        200 * sum(every_iteration[:4]) / 4 + 230 * sum(every_iteration[4:]) / 4, rel=0.02
    )


def test_wall_time_of_a_text_log_is_that_of_its_sessions(tmp_path: Path) -> None:
    first = text_log(SHORT, began=BEGAN, last=2, until=120)
    second = text_log(SHORT, began=datetime(2025, 7, 9), first=2, last=4)
    alone = [read(tmp_path, text).seconds for text in (first, second)]
    assert read(tmp_path, first + second).seconds == sum(alone, start=0.0), "not the days between them"


@pytest.mark.parametrize("form", ["text", "scalars"])
def test_of_a_resumed_training_the_last_word_counts(tmp_path: Path, form: str) -> None:
    before = Training(epochs=4, iterations=230, validations={1: (0.1, 0.1, 0.1), 2: (0.8, 0.9, 1.0)}, seed=1)
    if form == "text":
        log = read(
            tmp_path,
            text_log(before, began=BEGAN, last=3, until=160)
            + text_log(SHORT, began=datetime(2025, 7, 9), first=2, load_from="work_dirs/x/epoch_1.pth"),
        )
    else:
        log = read(tmp_path, scalars(before, last=3, until=160) + scalars(SHORT, first=2))
    assert steps(log) == [(epoch - 1) * 230 + iteration for epoch, iteration in SHORT.windows()]
    written = [
        (before if epoch == 1 else SHORT).window(epoch, iteration)["seg_loss"] for epoch, iteration in SHORT.windows()
    ]
    assert [window.values["seg_loss"] for window in log.windows] == pytest.approx(written, abs=ROUNDED * 1.01)
    assert validated(log) == [(1, 230, 0.1), (2, 460, 0.4), (4, 920, 0.5)]
    assert log.superseded == 4 + 3 + 1, "epoch 2, what there was of epoch 3, and epoch 2's validation"
    assert log.sessions == 2
    if form == "text":
        assert log.facts["load_from"] == "work_dirs/tmp/mask3d_scannet200.pth", "where the training began"


def test_an_abandoned_continuation_leaves_nothing(tmp_path: Path) -> None:
    """All four epochs, then once more from epoch 2 and broken off in epoch 3: epoch 4 is of no training any more."""
    log = read(
        tmp_path, scalars(SHORT) + scalars(Training(epochs=4, iterations=230, seed=1), first=2, last=3, until=160)
    )
    assert steps(log) == [50, 100, 150, 200, 280, 330, 380, 430, 510, 560, 610]
    assert validated(log) == []
    assert log.epochs_done == 2


def test_a_training_cut_short_has_done_the_epochs_it_ended(tmp_path: Path) -> None:
    assert read(tmp_path, scalars(SHORT, last=3)).epochs_done == 3
    assert read(tmp_path, scalars(SHORT, last=3, until=160)).epochs_done == 2
    assert read(tmp_path, text_log(SHORT, began=BEGAN, last=1, until=160)).epochs_done == 0
    only_one = Training(epochs=1, iterations=230)
    assert read(tmp_path, scalars(only_one)).epochs_done is None, "scalars of one epoch do not tell its length"


def test_wherever_a_line_is_cut_off_no_wrong_value_is_taken(tmp_path: Path) -> None:
    lines = text_log(SHORT, began=BEGAN, last=2, until=160, chatter=False).splitlines(keepends=True)[-2:]
    whole = read(tmp_path, "".join(lines)).windows[1]
    assert whole.step == 380
    taken = 0
    for length in range(lines[1].index("Epoch(") + len("Epoch("), len(lines[1])):
        log = read(tmp_path, lines[0] + lines[1][:length])
        if log.cut:
            assert (log.cut, steps(log)) == (1, [330])
        else:
            taken += 1
            assert log.windows[1].values.items() <= whole.values.items()
    assert taken == 7, "where whole values end: behind loss and inst_loss, with their two spaces, and at the end"


def test_two_records_in_one_line_are_told_apart(tmp_path: Path) -> None:
    lines = text_log(SHORT, began=BEGAN).splitlines()
    at = next(index for index, line in enumerate(lines) if "[3][ 50/230]" in line)
    lines[at : at + 2] = [lines[at][:-9] + lines[at + 1]]
    log = read(tmp_path, "\n".join(lines))
    assert log.cut == 1
    assert steps(log) == [
        step for step in steps(read(tmp_path, text_log(SHORT, began=BEGAN))) if step not in {510, 560}
    ]


@pytest.mark.parametrize("length", [12, 60, 200])
def test_a_line_of_scalars_cut_off_is_left_out_and_counted(tmp_path: Path, length: int) -> None:
    whole, last = scalars(SHORT, last=1).splitlines()[:3], scalars(SHORT, last=1).splitlines()[3]
    log = read(tmp_path, "\n".join([*whole, last[:length]]))
    assert (steps(log), log.cut) == ([50, 100, 150], 1)


def test_other_losses_are_kept_and_other_lines_ignored(tmp_path: Path) -> None:
    record = SHORT.window(1, 50) | {"balance_loss": 0.5, "note": "x"}
    log = read(tmp_path, "\n".join(['{"a": 1}', "", json.dumps(record)]))
    assert log.cut == 0
    assert log.windows[0].values["balance_loss"] == 0.5
    assert "note" not in log.windows[0].values
    text = text_log(SHORT, began=BEGAN)
    log = read(tmp_path, text.replace("  grad_norm", "  note: x  balance_loss: 0.5000  grad_norm"))
    assert (log.cut, log.windows[0].values["balance_loss"]) == (0, 0.5)
    assert "note" not in log.windows[0].values


def test_a_test_of_given_weights_has_a_result_and_no_epoch(tmp_path: Path) -> None:
    values = "all_ap: 0.6243  all_ap_50%: 0.8149  all_ap_25%: 0.9102  data_time: 0.1551  time: 6.2308"
    log = read(tmp_path, f"2024/09/23 16:47:24 - mmengine - INFO - Epoch(test) [44/44]    {values}\n")
    assert validated(log) == [(None, 0, 0.8149)]
    assert log.epochs_done is None
    summary = json.dumps({"all_ap": 0.6243, "all_ap_50%": 0.8149, "all_ap_25%": 0.9102, "time": 0.3})
    assert validated(read(tmp_path, summary)) == [(None, 0, 0.8149)]


BY_ITERATION = (
    "2025/08/12 11:56:37 - mmengine - INFO - Iter(train) [   50/80128]  lr: 1.0000e-04  eta: 1 day, 0:34:04  "
)


@pytest.mark.parametrize(
    "text",
    [
        BY_ITERATION + "time: 0.2055  data_time: 0.0109  memory: 4732  loss: 4.1000\n",
        '{"lr": 0.0001, "loss": 4.1, "time": 0.2, "iter": 50, "memory": 4732, "step": 50}\n',
        scalars(SHORT).replace('"step": 2}', '"step": 460}'),
    ],
    ids=["text log", "scalars", "validations alone"],
)
def test_a_log_that_counts_iterations_is_refused_in_either_form(tmp_path: Path, text: str) -> None:
    with pytest.raises(DitrError, match="counts iterations, not epochs"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no whole record"),
        (b"name: baseline\n", "no whole record"),
        (b'{"model": 1}\n', "no whole record"),
        (b"\x00\x01PK", "no whole record"),
        (b"2020-08-01 01:10:31,475 - mmdet - INFO - Epoch [3][50/1749]\tlr: 2.000e-02, loss: 1.0\n", "no whole record"),
        (b'{"lr": 0.0001, "data_ti', "1 that are not whole"),
    ],
)
def test_a_file_that_is_no_log_is_one_message(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(DitrError, match=told) as error:
        read_esam_log(file)
    assert error.value.code is Code.RUN
    assert error.value.where == str(file)
    assert "vis_data" in error.value.fix


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.log"):
        with pytest.raises(DitrError, match="no such file") as error:
            read_esam_log(path)
        assert error.value.where == str(path)
