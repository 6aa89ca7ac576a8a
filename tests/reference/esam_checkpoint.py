"""Weight files in exactly the format of the published ones, from a seed; written without ditr.

Shapes are those of ESAM's single-view model at full size (docs/reference/esam.md, State dict), the wrappers
those of mmengine 0.10 and of Lightning, with the objects that their files hold beside the weights. The frameworks are
not installed: their classes are made here, under the names that a pickle stores.

    python -m tests.reference.esam_checkpoint OUT_DIR
"""

from __future__ import annotations

import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

State = OrderedDict[str, Tensor]

BACKBONE_ENTRIES = 372
BACKBONE_PARAMETERS = 37_854_112
ALL_PARAMETERS = 41_459_787

# block: (number of residual blocks, channels in, channels out)
BLOCKS = {1: (2, 32, 32), 2: (3, 32, 64), 3: (4, 64, 128), 4: (6, 128, 256)} | {
    5: (2, 384, 256),
    6: (2, 192, 128),
    7: (2, 128, 96),
    8: (2, 128, 96),
}
DOWN = {"conv1p1s2": (8, 32, 32), "conv2p2s2": (8, 32, 32), "conv3p4s2": (8, 64, 64), "conv4p8s2": (8, 128, 128)}
UP = {"convtr4p16s2": (8, 256, 256), "convtr5p8s2": (8, 256, 128), "convtr6p4s2": (8, 128, 96)} | {
    "convtr7p2s2": (8, 96, 96)
}


def backbone_shapes() -> dict[str, tuple[int, ...]]:
    """The 372 entries, without the prefix ``backbone.``."""
    shapes: dict[str, tuple[int, ...]] = {"conv0p1s1.kernel": (125, 3, 32), **_norm("bn0", 32)}
    for stage, (name, kernel) in enumerate(DOWN.items(), start=1):
        shapes |= {f"{name}.kernel": kernel, **_norm(f"bn{stage}", kernel[2])} | _blocks(stage)
    for stage, (name, kernel) in enumerate(UP.items(), start=4):
        shapes |= {f"{name}.kernel": kernel, **_norm(f"bntr{stage}", kernel[2])} | _blocks(stage + 1)
    assert len(shapes) == BACKBONE_ENTRIES
    return shapes


def pool_shapes() -> dict[str, tuple[int, ...]]:
    """The superpoint pooling's, without the prefix ``pool.``."""
    first = {**_linear("pts_proj1.0", 3, 96), **_pair("pts_proj1.1", 96)}
    second = {**_linear("pts_proj1.3", 96, 96), **_pair("pts_proj1.4", 96)}
    weight = {**_linear("pts_proj2.0", 192, 96), **_pair("pts_proj2.1", 96), "pts_proj2.3.weight": (1, 96)}
    return first | second | weight


def decoder_shapes() -> dict[str, tuple[int, ...]]:
    """The query decoder's, without the prefix ``decoder.``."""
    shapes = {**_linear("input_proj.0", 96, 256), **_pair("input_proj.1", 256)}
    shapes |= {**_linear("query_proj.0", 96, 256), **_linear("query_proj.2", 256, 256)}
    for layer in range(3):
        for kind in ("cross_attn_layers", "self_attn_layers"):
            attention = f"{kind}.{layer}.attn"
            shapes |= {f"{attention}.in_proj_weight": (768, 256), f"{attention}.in_proj_bias": (768,)}
            shapes |= _linear(f"{attention}.out_proj", 256, 256) | _pair(f"{kind}.{layer}.norm", 256)
        feedforward = f"ffn_layers.{layer}"
        shapes |= _linear(f"{feedforward}.net.0", 256, 1024) | _linear(f"{feedforward}.net.3", 1024, 256)
        shapes |= _pair(f"{feedforward}.norm", 256)
    shapes |= _pair("out_norm", 256) | _linear("out_cls.0", 256, 256) | _linear("out_cls.2", 256, 2)
    shapes |= _linear("x_mask.0", 96, 256) | _linear("x_mask.2", 256, 256)
    shapes |= _linear("x_pts_mask.0", 99, 256) | _linear("x_pts_mask.2", 256, 256)
    return shapes | _linear("out_sem", 256, 201)


def backbone_state(*, seed: int) -> State:
    """Weights of the backbone with statistics under which a forward pass stays finite."""
    return _filled({f"backbone.{name}": shape for name, shape in backbone_shapes().items()}, seed=seed)


def esam_state(*, seed: int) -> State:
    """Weights of the whole single-view model."""
    state = backbone_state(seed=seed)
    rest = {f"pool.{name}": shape for name, shape in pool_shapes().items()}
    rest |= {f"decoder.{name}": shape for name, shape in decoder_shapes().items()}
    state.update(_filled(rest, seed=seed + 1))
    assert parameters(state) == ALL_PARAMETERS
    return state


def mask3d_left_overs(*, seed: int) -> State:
    """What of Mask3D is not in ESAM: the last layer of its backbone, and some of its decoder."""
    shapes = {"backbone.final.kernel": (96, 200), "backbone.final.bias": (1, 200)}
    shapes |= {f"query_projection.layers.{layer}.{kind}": (128, 128, 1) for layer in (0, 2) for kind in ("weight",)}
    shapes |= {"mask_embed_head.0.weight": (128, 128), "class_embed_head.weight": (201, 128)}
    return _filled(shapes, seed=seed)


def parameters(state: State) -> int:
    """Numbers that are trained: all but the statistics of norms."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(tensor.numel() for name, tensor in state.items() if not name.endswith(statistics))


def write_esam(path: Path, *, seed: int = 0, state: State | None = None, optimizer: bool = False) -> State:
    """An mmengine checkpoint of epoch 128; returns its weights."""
    state = esam_state(seed=seed) if state is None else state
    with _framework("mmengine.logging.history_buffer", HistoryBuffer=HistoryBuffer):
        content = {
            "meta": {
                "cfg": "model = dict(\n    type='ScanNet200MixFormer3D')\n",
                "dataset_meta": {"classes": ("wall", "floor"), "seg_valid_class_ids": np.array([1, 2, 3])},
                "seed": 1,
                "experiment_name": "ESAM_sv_scannet200_CA_20240901_120000",
                "time": "20240901_120000",
                "mmengine_version": "0.10.3",
                "epoch": 128,
                "iter": 158_848,
            },
            "message_hub": {
                "log_scalars": OrderedDict((f"train/{name}", HistoryBuffer(50)) for name in ("loss", "lr", "time")),
                "runtime_info": OrderedDict(epoch=127, max_epochs=128, last_time=np.float64(1.5)),
                "resumed_keys": OrderedDict(),
            },
            "state_dict": state,
            "param_schedulers": [{"power": 0.9, "last_step": 128, "_global_step": 128}],
        }
        if optimizer:
            content["optimizer"] = _adamw(state)
        torch.save(content, path)
    return state


def write_mask3d(path: Path, *, seed: int = 0, state: State | None = None) -> State:
    """A bare Mask3D checkpoint as OneFormer3D converted it; returns its weights."""
    state = backbone_state(seed=seed) | mask3d_left_overs(seed=seed + 1) if state is None else state
    torch.save({"state_dict": state}, path)
    return OrderedDict(state)


def write_lightning(path: Path, *, state: State) -> None:
    """A Lightning checkpoint of the state under ``model.``, with OmegaConf's configuration beside it."""
    state = OrderedDict((f"model.{name}", tensor) for name, tensor in state.items())
    state["criterion.empty_weight"] = torch.ones(201)
    with (
        _framework("omegaconf.dictconfig", DictConfig=DictConfig),
        _framework("omegaconf.base", ContainerMetadata=ContainerMetadata),
        _framework("pytorch_lightning.callbacks.model_checkpoint", ModelCheckpoint=ModelCheckpoint),
    ):
        content = {
            "epoch": 600,
            "global_step": 360_000,
            "pytorch-lightning_version": "1.7.2",
            "state_dict": state,
            "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(0.3), "dirpath": Path("saved")}},
            "hyper_parameters": DictConfig(),
            "hparams_type": DictConfig,
        }
        torch.save(content, path)


def in_spconv_layout(state: State) -> State:
    """Kernels as spconv 2 stores them: (out, k, k, k, in), for a volume of 1 (out, in)."""

    def permuted(name: str, kernel: Tensor) -> Tensor:
        if not name.endswith(".kernel"):
            return kernel
        if kernel.ndim == 2:
            return kernel.t().contiguous()
        edge = round(len(kernel) ** (1 / 3))
        z_y_x = kernel.reshape(edge, edge, edge, *kernel.shape[1:])  # the first axis is the fastest: z, y, x
        return z_y_x.permute(4, 0, 1, 2, 3).contiguous()

    return OrderedDict((name, permuted(name, tensor)) for name, tensor in state.items())


class HistoryBuffer:
    """As mmengine's: its pickled state names its own methods."""

    def __init__(self, length: int) -> None:
        self.max_length = 1_000_000
        self._log_history = np.linspace(2.0, 1.0, length)
        self._count_history = np.ones(length, dtype=np.int64)

    def mean(self) -> float:
        return float(self._log_history.mean())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"statistics_methods": {"mean": HistoryBuffer.mean}}


class ContainerMetadata:
    """As OmegaConf's."""

    def __init__(self) -> None:
        self.ref_type = Any
        self.object_type = dict
        self.resolver_cache = defaultdict(dict, {"oc.env": {"HOME": "/"}})


class DictConfig:
    """As OmegaConf's."""

    def __init__(self) -> None:
        self._metadata = ContainerMetadata()
        self._content = {"general": {"num_targets": 201, "save_dir": "saved"}}


class ModelCheckpoint:
    """As Lightning's, whose older versions use it as a key."""


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    esam = write_esam(folder / "epoch_128.pth", optimizer=True)
    mask3d = write_mask3d(folder / "mask3d_scannet200.pth")
    write_lightning(folder / "mask3d_lightning.ckpt", state=mask3d)
    write_esam(folder / "esam_spconv.pth", state=in_spconv_layout(esam))
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size / 1e6:7.1f} MB  {path}")


@contextmanager
def _framework(module: str, **classes: type) -> Iterator[None]:
    """Classes of this file under the module that a pickle shall name, only while it is written."""
    names = [module.rsplit(".", depth)[0] for depth in range(module.count("."), -1, -1)]
    before = {name: sys.modules.get(name) for name in names}
    homes = {kind: kind.__module__ for kind in classes.values()}
    for name in names:
        sys.modules.setdefault(name, types.ModuleType(name))
    try:
        for name, kind in classes.items():
            kind.__module__ = module
            for member in vars(kind).values():
                if isinstance(member, types.FunctionType):
                    member.__module__ = module
            setattr(sys.modules[module], name, kind)
        yield
    finally:
        for kind, home in homes.items():
            kind.__module__ = home
        for name, old in before.items():
            if old is None:
                del sys.modules[name]


def _filled(shapes: dict[str, tuple[int, ...]], *, seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return OrderedDict((name, _value(name, shape, generator)) for name, shape in shapes.items())


def _value(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(158_848)
    noise = torch.rand(shape, generator=generator) * 2 - 1
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return 1 + 0.2 * noise
    if len(shape) < 2 or name.endswith("bias"):
        return 0.1 * noise
    fan_in = shape[0] * shape[1] if name.endswith("kernel") and len(shape) == 3 else shape[0 if "kernel" in name else 1]
    return noise * (3 / fan_in) ** 0.5


def _adamw(state: State) -> dict[str, Any]:
    trained = [tensor for tensor in state.values() if tensor.is_floating_point()]
    moments = {
        index: {"step": torch.tensor(158_848.0), "exp_avg": torch.zeros_like(one), "exp_avg_sq": torch.zeros_like(one)}
        for index, one in enumerate(trained)
    }
    return {"state": moments, "param_groups": [{"lr": 0.0, "params": list(range(len(trained)))}]}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    statistics = {f"{name}.bn.{kind}": (width,) for kind in ("weight", "bias", "running_mean", "running_var")}
    return statistics | {f"{name}.bn.num_batches_tracked": ()}


def _blocks(block: int) -> dict[str, tuple[int, ...]]:
    count, ins, outs = BLOCKS[block]
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(count):
        name, width = f"block{block}.{index}", ins if index == 0 else outs
        shapes |= {f"{name}.conv1.kernel": (27, width, outs), **_norm(f"{name}.norm1", outs)}
        shapes |= {f"{name}.conv2.kernel": (27, outs, outs), **_norm(f"{name}.norm2", outs)}
        if width != outs:
            shapes |= {f"{name}.downsample.0.kernel": (width, outs), **_norm(f"{name}.downsample.1", outs)}
    return shapes


def _linear(name: str, ins: int, outs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outs, ins), f"{name}.bias": (outs,)}


def _pair(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


if __name__ == "__main__":
    main()
