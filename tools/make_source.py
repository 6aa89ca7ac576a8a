"""Trains the embedded 2D source on pictures of rooms that no data set holds, without labels, and probes it.

    python -m tools.make_source [FOLDER]

The folder, registry/features by default, gets the weights in float16, the entry that pins their digest, and beside them
the settings, the log and the probe: accuracy of a linear classifier of the six fine textures on the features of single
patches, of rooms that neither the source nor the classifier was fitted to. A GPU takes minutes; on a CPU it works, but
takes days.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ditr.catalog import sha256_of
from ditr.features.sources import load_source
from ditr.rooms.textures import FINE_KINDS
from ditr.spec.entries import VitEntry
from ditr.spec.models import FeatureSpec, FileWeights, OwnWeights, SeededWeights
from ditr.spec.registry import Registry
from tools.source.distil import Distillation, Network, distil, initial
from tools.source.pictures import Rooms, photographers, scenes_of_registered_sets, take, take_labelled
from tools.source.probe import Score, colour_maps, probe
from tools.source.views import SIZE, as_seen, edge_directions

NAME = "vit_mini14_reg4"
Labelled = tuple[np.ndarray, np.ndarray]
"""Pictures (n, 480, 640, 3) and the textures of their patches (n, 30, 40)."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the weights, and what they are probed with."""

    how: Distillation
    training: Rooms
    fitted: Rooms
    """What the probe's classifiers are fitted to."""
    held_out: Rooms
    """What they are tested on."""

    @property
    def scenes(self) -> set[int]:
        return {*self.training.numbers, *self.fitted.numbers, *self.held_out.numbers}


SETTINGS = Settings(
    how=Distillation(),
    training=Rooms(seed=2, first=20_000, scenes=2_000),
    fitted=Rooms(seed=2, first=30_000, scenes=160),
    held_out=Rooms(seed=2, first=40_000, scenes=100),
)


def main(folder: Path | None = None, *, settings: Settings = SETTINGS) -> int:
    registry = Registry()
    assert not settings.scenes & scenes_of_registered_sets(registry), "a room of a data set is a room of the source"
    folder = folder or registry.folders[0] / "features"
    (folder / NAME).mkdir(parents=True, exist_ok=True)
    entry = registry.features(NAME)
    assert isinstance(entry, VitEntry), f"{NAME} is a vision transformer"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    began = time.monotonic()
    with photographers() as pool:
        seen = as_seen(take(settings.training, pool=pool), device=device)
        fitted, held_out = (take_labelled(rooms, pool=pool) for rooms in (settings.fitted, settings.held_out))
    _say(f"pictures taken in {time.monotonic() - began:.0f} s")
    weights = train(seen, entry=entry, how=settings.how, folder=folder)
    scores = probe_all(fitted, held_out, entry=entry, how=settings.how, weights=weights, device=device)
    made = {"command": "python -m tools.make_source", "machine": _machine(device), "settings": asdict(settings)}
    _write(folder / NAME / "settings.json", made)
    _write(folder / NAME / "probe.json", {name: asdict(score) for name, score in scores.items()})
    text = registry.file("features", NAME).read_text()
    (folder / f"{NAME}.yaml").write_text(_pinned(text, sha256=sha256_of(weights), scores=scores))
    return 0


def train(seen: Tensor, *, entry: VitEntry, how: Distillation, folder: Path) -> Path:
    """The file of the weights; on the way it has those of the moment, and the log grows beside it."""
    weights, log = folder / f"{NAME}.safetensors", folder / NAME / "log.jsonl"
    log.write_text("")

    def keep(row: dict[str, float], teacher: Network) -> None:
        line = json.dumps(row | {key: float(f"{value:.5g}") for key, value in row.items() if key != "step"})
        with log.open("a") as file:
            file.write(f"{line}\n")
        _say(line)
        save(teacher, weights)

    distil(seen, entry=entry, how=how, each=keep, every=max(1, how.steps // 40))
    return weights


def probe_all(
    fitted: Labelled, held_out: Labelled, *, entry: VitEntry, how: Distillation, weights: Path, device: torch.device
) -> dict[str, Score]:
    """The same probe on the trained source, the untrained one, and colours."""
    start = weights.with_suffix(".start.safetensors")
    save(initial(entry, how), start)
    sources: dict[str, OwnWeights] = {
        "trained": FileWeights(kind="file", path=str(weights.resolve())),
        "untrained": SeededWeights(kind="seeded", seed=0),
        "untrained, as the training starts": FileWeights(kind="file", path=str(start.resolve())),
    }
    maps = {
        name: [encoded(pictures, entry=entry, weights=own, device=device) for pictures, _ in (fitted, held_out)]
        for name, own in sources.items()
    }
    start.unlink()
    for name, deviations in (("colour means", False), ("colour means and deviations", True)):
        maps[name] = [colour_maps(pictures, deviations=deviations) for pictures, _ in (fitted, held_out)]
    maps["directions of edges"] = [edge_maps(pictures, device=device) for pictures, _ in (fitted, held_out)]
    scores = {}
    for name, (x, x_held_out) in maps.items():
        pairs = (x, fitted[1]), (x_held_out, held_out[1])
        scores[name] = probe(*pairs, classes=len(FINE_KINDS), device=device)
        _say(f"{name}: {scores[name]}")
    return scores


def encoded(pictures: np.ndarray, *, entry: VitEntry, weights: OwnWeights, device: torch.device) -> Tensor:
    """(n, C, 30, 40) maps on the CPU, by the source as experiments load it."""
    source = load_source(FeatureSpec(source=NAME, input_size=SIZE, weights=weights), entry=entry, device=device)
    return torch.cat([source.encode(pictures[i : i + 16]).cpu() for i in range(0, len(pictures), 16)])


def edge_maps(pictures: np.ndarray, *, device: torch.device) -> Tensor:
    """(n, 8, 30, 40): the hand-made feature that the training's second loss asks for."""
    seen = as_seen(pictures, device=device)
    maps = [edge_directions(seen[i : i + 16].float() / 255, patch=SIZE[0] // 30) for i in range(0, len(seen), 16)]
    return torch.cat(maps).permute(0, 3, 1, 2).cpu()


def save(network: Network, path: Path) -> None:
    """The ViT alone, with timm's names, in float16."""
    state = {name: value.detach().half().cpu().contiguous() for name, value in network.vit.state_dict().items()}
    save_file(state, path)


def _pinned(text: str, *, sha256: str, scores: dict[str, Score]) -> str:
    """The entry with the new weights and how they came to be."""
    good, bad = scores["trained"].accuracy, scores["untrained"].accuracy
    said = (
        "A small ViT, distilled from itself without labels on pictures of rooms that no data set holds "
        f"(tools/make_source.py); a linear probe reads {good:.0%} of six textures from it, {bad:.0%} untrained."
    )
    new = {
        "description": said,
        "weights": f"{{kind: pretrained, file: {NAME}.safetensors, sha256: {sha256}}}",
        "licence": "apache-2.0",
    }
    keys = [line.split(":")[0] for line in text.splitlines()]
    lines = [f"{key}: {new[key]}" if key in new else line for key, line in zip(keys, text.splitlines(), strict=True)]
    return "\n".join(lines) + "\n"


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "torch": torch.__version__, "python": sys.version.split()[0]}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
