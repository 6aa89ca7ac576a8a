"""Linear probe: how much of a patch's texture can be read off its features by a linear classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tools.source.pictures import NO_TEXTURE, PATCH

L2 = 1e-4
ROUNDS = 200


@dataclass(frozen=True, kw_only=True)
class Score:
    """On the patches of rooms that the probe was not fitted to."""

    accuracy: float
    balanced_accuracy: float
    """Mean over the classes of the share that is recognised."""
    n_fitted: int
    n: int


def probe(
    fitted: tuple[Tensor, np.ndarray], held_out: tuple[Tensor, np.ndarray], *, classes: int, device: torch.device
) -> Score:
    """Fits a multinomial logistic regression to (maps (n, C, Hp, Wp), textures (n, Hp, Wp)), and tests it on others."""
    x, y = _patches(*fitted, device)
    x_test, y_test = _patches(*held_out, device)
    mean, std = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
    layer = fit((x - mean) / std, y, classes=classes)
    with torch.no_grad():
        right = layer((x_test - mean) / std).argmax(dim=1) == y_test
    recalls = [right[y_test == label].float().mean() for label in range(classes) if (y_test == label).any()]
    return Score(
        accuracy=right.float().mean().item(),
        balanced_accuracy=torch.stack(recalls).mean().item(),
        n_fitted=len(y),
        n=len(y_test),
    )


def fit(x: Tensor, y: Tensor, *, classes: int) -> nn.Linear:
    """The minimum of mean cross-entropy + L2 |w|^2, from zero weights."""
    layer = nn.Linear(x.shape[1], classes).to(x.device)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=ROUNDS, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(layer(x), y) + L2 * layer.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return layer


def colour_maps(pictures: np.ndarray, *, deviations: bool) -> Tensor:
    """(n, 3 or 6, 30, 40): each patch's mean colour, and with ``deviations`` its standard deviation."""
    patches = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    patches = patches.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(4)
    mean = patches.mean(dim=-1)
    return torch.cat([mean, patches.std(dim=-1)], dim=1) if deviations else mean


def _patches(maps: Tensor, textures: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, C) features and (N,) labels of the patches that have a texture."""
    labels = torch.from_numpy(textures)
    chosen = labels != NO_TEXTURE
    return maps.movedim(1, -1)[chosen].float().to(device), labels[chosen].to(device)
