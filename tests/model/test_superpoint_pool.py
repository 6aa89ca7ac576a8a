from __future__ import annotations

import torch

from ditr.model.segments import Segments
from ditr.model.superpoint_pool import GeoAwarePooling


def test_size_and_names_are_the_reference_s() -> None:
    pool = GeoAwarePooling(96)
    assert sum(p.numel() for p in pool.parameters()) == 28_896
    names = {f"pts_proj1.{i}.{part}" for i in (0, 1, 3, 4) for part in ("weight", "bias")}
    names |= {f"pts_proj2.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")}
    assert set(pool.state_dict()) == names | {"pts_proj2.3.weight"}


def test_pooling_is_that_of_a_loop_over_superpoints() -> None:
    torch.manual_seed(0)
    pool = GeoAwarePooling(6)
    features, xyz = torch.randn(60, 6), torch.randn(60, 3) * 0.3 - 1
    superpoints = torch.cat([torch.arange(7), torch.randint(0, 6, (53,))])  # number 6 has a single point
    out = pool(features, xyz, Segments(of_row=superpoints, count=7))
    for index in range(7):
        rows = (superpoints == index).nonzero().squeeze(1)
        own = xyz[rows]
        side = (own.max(dim=0).values - own.min(dim=0).values).max()
        shape = pool.pts_proj1((own - own.mean(dim=0)) / (side + 0.01))
        code = shape.max(dim=0).values
        weights = 2 * pool.pts_proj2(torch.cat([shape, code.expand(len(rows), -1)], dim=1))
        torch.testing.assert_close(out.point_weights[rows], weights[:, 0])
        torch.testing.assert_close(out.features[index], (features[rows] * weights).mean(dim=0) + code)
    assert ((out.point_weights > 0) & (out.point_weights < 2)).all()
