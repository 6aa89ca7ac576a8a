"""Writes what mmengine 0.10 leaves of a training of ESAM: its text log and vis_data/scalars.json.

Shares nothing with the reader. Numbers are drawn, but the learning rate follows mmengine's recursion (each epoch's from
the one before), and a loss over a window is NaN where the caller says that an iteration was
(docs/reference/esam.md, NaN; Schedule).
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

WINDOW = 50
FRAMES = 2780


@dataclass(frozen=True, kw_only=True)
class Training:
    epochs: int = 128
    iterations: int = 626
    learning_rate: float = 1e-4
    nan_inst: Collection[tuple[int, int]] = frozenset()
    """(epoch, iteration) of the windows in which inst_loss, and with it loss, is NaN."""
    nan_seg: Collection[tuple[int, int]] = frozenset()
    validations: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    """By epoch: AP, AP50, AP25."""
    seed: int = 0

    def windows(self) -> list[tuple[int, int]]:
        starts = range(WINDOW, self.iterations + 1, WINDOW)
        return [(epoch, iteration) for epoch in range(1, self.epochs + 1) for iteration in starts]

    def rate(self, epoch: int) -> float:
        rate, total = self.learning_rate, self.epochs - 1
        for last in range(1, epoch):
            rate *= (1 - 1 / (total - last + 1)) ** 0.9
        return rate

    def window(self, epoch: int, iteration: int) -> dict[str, Any]:
        """Values of one window, the same whenever it is asked for."""
        draw = random.Random(f"{self.seed} {epoch} {iteration}")
        inst = 1.3 + 2.0 / epoch + 0.1 * draw.random()
        seg = 0.23 + 0.9 / epoch + 0.05 * draw.random()
        if (epoch, iteration) in self.nan_inst:
            inst = float("nan")
        if (epoch, iteration) in self.nan_seg:
            seg = float("nan")
        return {
            "base_lr": self.rate(epoch),
            "lr": self.rate(epoch),
            "data_time": 0.055 + 0.005 * draw.random(),
            "grad_norm": 6 + 10 * draw.random(),
            "loss": inst + seg,
            "inst_loss": inst,
            "seg_loss": seg,
            "time": 0.58 + 0.05 * draw.random(),
            "epoch": epoch,
            "iter": (epoch - 1) * self.iterations + iteration,
            "memory": draw.randrange(4600, 5100),
        }

    def validation(self, epoch: int) -> dict[str, float]:
        ap, ap50, ap25 = self.validations[epoch]
        return {"all_ap": ap, "all_ap_50%": ap50, "all_ap_25%": ap25, "data_time": 0.0012, "time": 0.0553}


def scalars(training: Training, *, first: int = 1, last: int | None = None, until: int | None = None) -> str:
    """JSON lines of the epochs ``first`` to ``last``; of the last one, the windows before iteration ``until``."""
    lines = []
    for epoch, iteration in _windows(training, first=first, last=last, until=until):
        if iteration is None:
            lines.append(json.dumps(training.validation(epoch) | {"step": epoch}))
        else:
            values = training.window(epoch, iteration)
            lines.append(json.dumps(values | {"step": values["iter"]}))
    return "".join(line + "\n" for line in lines)


def text_log(
    training: Training,
    *,
    began: datetime,
    first: int = 1,
    last: int | None = None,
    until: int | None = None,
    load_from: str = "work_dirs/tmp/mask3d_scannet200.pth",
    chatter: bool = True,
) -> str:
    """One session: head, then its epochs as in ``scalars``."""
    clock = began
    lines = [_head(clock, training, load_from=load_from)]

    def say(message: str) -> None:
        lines.append(f"{clock:%Y/%m/%d %H:%M:%S} - mmengine - INFO - {message}")

    name = f"ESAM_sv_scannet200_CA_{began:%Y%m%d_%H%M%S}"
    previous = (first - 1) * training.iterations
    for epoch, iteration in _windows(training, first=first, last=last, until=until):
        if iteration is not None:
            values = training.window(epoch, iteration)
            clock += timedelta(seconds=values["time"] * (values["iter"] - previous))
            previous = values["iter"]
            say(_train_message(training, values, iteration=iteration))
            if iteration + WINDOW > training.iterations and chatter:
                say(f"Exp name: {name}")
                say(f"Saving checkpoint at {epoch} epochs")
                lines.append(
                    "/envs/esam/lib/python3.8/site-packages/x.py:136: UserWarning: point got color value beyond"
                )
            continue
        for frame in range(WINDOW, FRAMES + 1, WINDOW) if chatter else ():
            where = f"[{epoch}][{frame:>4}/{FRAMES}]"
            say(f"Epoch(val) {where}    eta: 0:00:29  time: 0.0553  data_time: 0.0012  memory: 909  ")
        clock += timedelta(seconds=154)
        values = training.validation(epoch)
        ap, ap50, ap25 = training.validations[epoch]
        border = "+---------+---------+---------+--------+"
        say("\n" + "\n".join([border, "| classes | AP_0.25 | AP_0.50 | AP     |", border,
                              f"| object  | {ap25:.4f}  | {ap50:.4f}  | {ap:.4f} |", border]))  # fmt: skip
        numbers = "  ".join(f"{key}: {value:.4f}" for key, value in values.items())
        say(f"Epoch(val) [{epoch}][{FRAMES}/{FRAMES}]    {numbers}")
        say(f"The best checkpoint with {ap50:.4f} all_ap_50% at {epoch} epoch is saved to best_all_ap_50%_{epoch}.pth.")
    return "\n".join(lines) + "\n"


def _windows(
    training: Training, *, first: int, last: int | None, until: int | None
) -> Iterator[tuple[int, int | None]]:
    """(epoch, iteration) of windows, (epoch, None) of validations, in their order."""
    last = last or training.epochs
    for epoch in range(first, last + 1):
        for _, iteration in [window for window in training.windows() if window[0] == epoch]:
            if epoch < last or until is None or iteration < until:
                yield epoch, iteration
        if epoch in training.validations and (epoch < last or until is None):
            yield epoch, None


def _train_message(training: Training, values: Mapping[str, Any], *, iteration: int) -> str:
    epoch = f"[{values['epoch']}]".rjust(len(str(training.epochs)) + 3)
    width = len(str(training.iterations))
    eta = timedelta(seconds=int(0.6 * (training.epochs * training.iterations - values["iter"])))
    rates = f"base_lr: {values['base_lr']:.4e} lr: {values['lr']:.4e}"
    times = f"eta: {eta}  time: {values['time']:.4f}  data_time: {values['data_time']:.4f}  memory: {values['memory']}"
    rest = "  ".join(f"{key}: {values[key]:.4f}" for key in ("grad_norm", "loss", "inst_loss", "seg_loss"))
    return f"Epoch(train){epoch}[{iteration:>{width}}/{training.iterations}]  {rates}  {times}  {rest}"


def _head(clock: datetime, training: Training, *, load_from: str) -> str:
    stamp = f"{clock:%Y/%m/%d %H:%M:%S} - mmengine - INFO -"
    rule, end = "-" * 60, " "  # mmengine leaves spaces at the ends of lines
    return f"""{stamp}{end}
{rule}
System environment:
    sys.platform: linux
    Python: 3.8.19 (default, Mar 20 2024, 19:58:24) [GCC 11.2.0]
    CUDA available: True
    MUSA available: False
    numpy_random_seed: 1160385709
    GPU 0: NVIDIA GeForce RTX 4090
    CUDA_HOME: /usr/local/cuda-11.6
    GCC: gcc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0
    PyTorch: 1.13.1+cu116
    PyTorch compiling details: PyTorch built with:
  - GCC 9.3
  - CUDA Runtime 11.6
    OpenCV: 4.10.0
    MMEngine: 0.10.3

Runtime environment:
    cudnn_benchmark: False
    mp_cfg: {{'mp_start_method': 'fork', 'opencv_num_threads': 0}}
    dist_cfg: {{'backend': 'nccl'}}
    seed: None
    Distributed launcher: none
    Distributed training: False
    GPU number: 1
{rule}

{stamp} Config:
custom_hooks = [
    dict(after_iter=True, type='EmptyCacheHook'),
]
load_from = '{load_from}'
model = dict(
    criterion=dict(
        inst_criterion=dict(loss_weight=[
            0.5,
            1.0,
        ], num_classes=1)),
    train_cfg=dict(max_epochs=7))
param_scheduler = dict(begin=0, end={training.epochs}, power=0.9, type='PolyLR')
test_dataloader = dict(
    batch_size=1,
    dataset=dict(type='ScanNet200SegDataset_'))
train_cfg = dict(
    max_epochs={training.epochs}, type='EpochBasedTrainLoop', val_interval=128)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        ann_file='scannet200_sv_oneformer3d_infos_train.pkl'))
val_dataloader = dict(
    batch_size=1)
work_dir = './work_dirs/ESAM_sv_scannet200_CA'

{stamp} Hooks will be executed in the following order:
before_run:
(VERY_HIGH   ) RuntimeInfoHook{end}
 --------------------{end}
{stamp} Load checkpoint from {load_from}
{stamp} Checkpoints will be saved to ./work_dirs/ESAM_sv_scannet200_CA."""
