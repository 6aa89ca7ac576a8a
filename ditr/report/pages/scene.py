"""A page in the browser that shows a scene while frames are merged into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ditr.data.frame_view import FrameView
from ditr.evaluation.scene import Scene
from ditr.evaluation.voxels import VOXEL_M
from ditr.report.pages.page import add_camera, open_page
from ditr.report.scene_colours import scene_colours

if TYPE_CHECKING:
    from viser import ViserServer

INSTEAD = "leave out --live: the scene is written to files all the same"
"""Where there is no viser."""
BEHIND_M, ABOVE_M = 1.8, 1.2
"""Where a page begins to look from, seen from the scene's first camera."""


@contextmanager
def open_scene_page(host: str, port: int) -> Iterator[ScenePage]:
    """Served while the block runs; raises what ``open_page`` does."""
    with open_page(host, port, label="ditr predict", instead=INSTEAD) as server:
        yield ScenePage(server)


class ScenePage:
    """The newest scene, and the camera of the frame that came to it last."""

    def __init__(self, server: ViserServer) -> None:
        self._server = server
        self._shown: str | None = None
        server.scene.set_up_direction("+z")
        server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="medium")
        self._text = server.gui.add_markdown("waiting for the first frame")

    def show(self, name: str, scene: Scene, view: FrameView, shift: np.ndarray) -> None:
        """Puts the scene in the place of the last one.

        Parameters
        ----------
        view: of the frame that was merged last.
        shift: (3,) from its centred world to the scene's.
        """
        if name != self._shown:
            self._look_from_behind(view, shift)
            self._shown = name
        self._server.scene.add_point_cloud(
            "/scene",
            points=(scene.xyz - self._origin).astype(np.float32),
            colors=scene_colours(scene),
            point_size=0.6 * VOXEL_M,
            point_shape="circle",
            point_shading="flat",
            precision="float32",
        )
        add_camera(self._server, view.in_space, image=view.image, shift=shift - self._origin)
        there = len(set(scene.instance_of_voxel().tolist()) - {-1})
        self._text.content = f"**{name}**  \n{view.frame_id}: **{there}** instances, {len(scene.keys):,} voxels"

    def _look_from_behind(self, view: FrameView, shift: np.ndarray) -> None:
        """From now on the origin is the middle of this frame: worlds may be far from theirs, and float32 is short."""
        self._origin = shift
        cloud = view.in_space
        camera = self._server.initial_camera
        camera.position = cloud.pose_c2w[:3, 3] - BEHIND_M * cloud.forward + np.array([0.0, 0.0, ABOVE_M])
        camera.look_at = np.median(cloud.xyz, axis=0)
