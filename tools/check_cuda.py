"""Whether the GPU computes what the CPU computes: one full-size forward pass of a spec's model on both.

    python tools/check_cuda.py specs/scannet200_sv/fpn_inject.yaml [fusion.injection.pooling=mean ...]

On the CPU with MinkowskiEngine, on the GPU with the spec's engine. Weights are random, also where the fusion would
start at zero; frames are those of the embedded set synthrooms_tiny; 2D features are noise. Exit code 1 if any output
differs by more than the limit, relative to its largest value.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from ditr.data.batch import Batch, collate
from ditr.data.dataset import open_dataset
from ditr.data.samples import SampleSet
from ditr.model.esam import EsamSingleView
from ditr.model.output import ModelOutput
from ditr.model.sparse.choice import choose_engine
from ditr.rooms import make_missing
from ditr.spec.feature_maps import map_shape
from ditr.spec.load import load_spec
from ditr.spec.registry import Registry

LIMIT = 1e-3


def main(path: str, *overrides: str) -> int:
    registry = Registry()
    spec = load_spec(Path(path), registry=registry, overrides=overrides).spec
    features = spec.read_features
    assert features is not None, "the spec needs a fusion"
    entry = registry.features(features.source)
    shape = map_shape(features, entry)
    torch.manual_seed(0)
    model = EsamSingleView(
        spec.model,
        fusion=spec.fusion,
        feature_channels=shape[0],
        sampling=features.sampling,
        query_fraction=spec.loss.query_fraction,
    ).eval()
    for name, weight in model.named_parameters():
        if name.startswith(("injection.", "bifusion.", "stem.")):
            torch.nn.init.normal_(weight, std=0.02)
    batch = _batch(spec.model.voxel_size_m, shape=shape, registry=registry)
    with torch.no_grad():
        on_cpu = _named(model(batch))
        model.engine = choose_engine(spec.execution.engine, device=torch.device("cuda"))
        print(f"the GPU with {model.engine}")
        on_gpu = _named(model.to("cuda")(batch.to(torch.device("cuda"))))
    worst = 0.0
    for name, ours in on_cpu.items():
        difference = float((ours - on_gpu[name].cpu()).abs().max() / ours.abs().max())
        worst = max(worst, difference)
        print(f"{name:28} {tuple(ours.shape)!s:16} {difference:.2e}")
    print(f"largest relative difference {worst:.2e}, limit {LIMIT:.0e}")
    return int(not worst <= LIMIT)


def _batch(voxel_size_m: float, *, shape: tuple[int, ...], registry: Registry) -> Batch:
    noise = _Noise(shape)
    make_missing("synthrooms_tiny", registry=registry)
    frames = open_dataset("synthrooms_tiny", registry=registry).train
    samples = SampleSet(frames, seed=0, voxel_size_m=voxel_size_m, augmentation=None, tokens=noise.read)
    return collate([samples[index] for index in range(len(samples))])


class _Noise:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def read(self, frame_id: str) -> Tensor:
        return torch.randn(self._shape).half()


def _named(output: ModelOutput) -> dict[str, Tensor]:
    named = {}
    for index, sample in enumerate(output.samples):
        for level, head in enumerate(sample.heads[:1]):
            named[f"sample {index} head {level} masks"] = head.masks
            named[f"sample {index} head {level} classes"] = head.class_logits
        named[f"sample {index} last classes"] = sample.heads[-1].class_logits
        named[f"sample {index} semantic"] = sample.semantic_logits
    return named


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
