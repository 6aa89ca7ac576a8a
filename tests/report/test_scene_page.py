"""The page of a scene that grows: what is on it is the newest scene."""

from __future__ import annotations

import sys
import urllib.request
from typing import Any

import numpy as np
import pytest

from ditr.errors import DitrError
from ditr.evaluation.scene import empty_scene, merge
from ditr.report.pages.page import require_place
from ditr.report.pages.scene import INSTEAD, ScenePage, open_scene_page
from ditr.report.scene_colours import scene_colours
from tests.ports import free_port
from tests.reference.hand_made_frame import POSE, hand_made


def test_the_newest_scene_and_camera_are_shown_near_the_pages_origin() -> None:
    """A world may be far from its origin, where float32 has no millimetres."""
    shift, rng, port = np.array([4000.0, -2000.0, 10.0]), np.random.default_rng(0), free_port()
    scene, view = empty_scene(), hand_made()
    with open_scene_page("127.0.0.1", port) as page:
        for _ in range(2):
            xyz = rng.uniform([-0.5, -0.5, 0.01], [0.5, 0.5, 0.02], (3000, 3)) + shift
            masks = (xyz[:, 0] < 4000)[None]
            scene = merge(scene, xyz=xyz, rgb=np.full((3000, 3), 80), masks=masks, scores=np.array([0.7]))
            page.show("room", scene, view, shift)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=20) as answer:
            assert answer.status == 200
        shown = _named(page)
        np.testing.assert_allclose(shown["/scene"].points, scene.xyz - shift, atol=1e-3)
        np.testing.assert_array_equal(shown["/scene"].colors, scene_colours(scene))
        np.testing.assert_allclose(shown["/camera"].position, POSE[:3, 3], atol=1e-6)
        assert f"**1** instances, {len(scene.keys):,} voxels" in page._text.content
    require_place("127.0.0.1", port, instead=INSTEAD)


def test_without_viser_the_message_has_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(DitrError, match="needs viser") as error, open_scene_page("127.0.0.1", free_port()):
        pass
    assert "ditr[view]" in error.value.fix
    assert "leave out --live" in error.value.fix


def _named(page: ScenePage) -> dict[str, Any]:
    return dict(page._server.scene._handle_from_node_name)
