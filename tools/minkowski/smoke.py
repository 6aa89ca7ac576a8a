"""Checks an installed MinkowskiEngine with one sparse convolution against torch's dense one, on every device it has.

    python tools/minkowski/smoke.py

Prints one line and exits 0 when they agree; an ImportError or a difference ends with a traceback and exit code 1.
"""

from __future__ import annotations

import collections
import collections.abc
import warnings

collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]  # the engine predates Python 3.10
warnings.filterwarnings("ignore")

import MinkowskiEngine as ME  # noqa: E402
import torch  # noqa: E402


def largest_difference(device: str) -> float:
    """A full 4x4x4 grid through one 3x3x3 convolution: the largest difference from ``conv3d`` with padding 1."""
    torch.manual_seed(0)
    layer = ME.MinkowskiConvolution(2, 3, kernel_size=3, dimension=3).to(device)
    grid = torch.cartesian_prod(torch.arange(1), *[torch.arange(4)] * 3).int()
    features = torch.randn(len(grid), 2)
    sparse = layer(ME.SparseTensor(features.to(device), coordinates=grid.to(device)))
    kernel = layer.kernel.detach().cpu().reshape(3, 3, 3, 2, 3).permute(4, 3, 2, 1, 0)
    volume = features.reshape(4, 4, 4, 2).permute(3, 0, 1, 2)[None]
    dense = torch.nn.functional.conv3d(volume, kernel, padding=1)[0]
    b, x, y, z = sparse.C.long().cpu().T
    assert len(b) == 64
    return float((sparse.F.detach().cpu() - dense[:, x, y, z].T).abs().max())


if __name__ == "__main__":
    devices = ["cpu", "cuda"] if ME.is_cuda_available() and torch.cuda.is_available() else ["cpu"]
    for device in devices:
        difference = largest_difference(device)
        assert difference < 1e-4, f"MinkowskiEngine is wrong on {device}: differs by {difference} from conv3d"
    print(f"MinkowskiEngine {ME.__version__} on torch {torch.__version__} equals conv3d on {' and '.join(devices)}")
