"""A frame that a run saw as a page in the browser: its points in 3D, in colours of choice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ditr.data.frame_view import Cloud, FrameView
from ditr.evaluation.point_outcomes import least_shown, point_outcomes
from ditr.report.frame_colours import Colouring, colourings, colours_of, keys_of
from ditr.report.pages.page import add_camera, address, open_page

if TYPE_CHECKING:
    from viser import ViserServer

INSTEAD = "draw the frame as a picture: --out FILE.png"
"""Where there is no viser."""
FIRST: Colouring = "prediction"
"""The colouring that the page begins with."""
POINT_SIZE_M = 0.025
BEHIND_M, BESIDE_M, ABOVE_M = 0.8, 0.7, 0.4
"""Where a page begins to look from, seen from the frame's camera."""
FOV = 1.0
"""Vertical, in radians."""


def serve(view: FrameView, *, run: str, best_score: float, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves the page until Ctrl-C; ``ready`` takes its address once it is there.

    Raises
    ------
    DitrError: as ``require_place``, or the port was taken meanwhile.
    """
    with open_page(host, port, label="ditr view", instead=INSTEAD) as server, suppress(KeyboardInterrupt):
        _fill(server, view, run=run, best_score=best_score)
        ready(address(host, port))
        threading.Event().wait()


def counts(view: FrameView, min_score: float) -> str:
    """What is shown and found, in one sentence of Markdown."""
    outcomes = point_outcomes(view, min_score=min_score)
    shown = f"**{outcomes.shown}** of {len(view.predicted.scores)} predictions shown"
    found = f", **{outcomes.found}** of {outcomes.total} instances found at IoU 0.5"
    return shown + (found if view.labelled else "")


def legend(view: FrameView, name: Colouring, *, min_score: float) -> str:
    """HTML: a square and a name for each key of the colouring; empty if it has none."""
    keys = keys_of(view, name, min_score=min_score)
    lines = (f'<span style="color: {colour}">&#9632;</span> {escape(key)}<br>' for key, colour in keys.items())
    return f'<div style="padding: 0 1em 0.75em; font-size: 0.85em">{"".join(lines)}</div>' if keys else ""


def _fill(server: ViserServer, view: FrameView, *, run: str, best_score: float) -> None:
    """The scene, and the controls that change it."""
    cloud, min_score = view.in_space, least_shown(view.predicted.scores, best_score=best_score)
    server.scene.set_up_direction("+z")
    server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="medium")
    _look_from_behind(server, cloud)
    camera = add_camera(server, cloud, image=view.image)
    points = server.scene.add_point_cloud(
        "/points",
        points=cloud.xyz,
        colors=colours_of(view, FIRST, min_score=min_score),
        point_size=POINT_SIZE_M,
        point_shape="circle",
        point_shading="flat",
        precision="float32",
    )
    gui = server.gui
    gui.add_markdown(f"**{run}**  \n{view.frame_id}, {len(cloud.xyz):,} points")
    colouring = gui.add_dropdown("Colours", colourings(view), initial_value=FIRST)
    keys = gui.add_html(legend(view, FIRST, min_score=min_score))
    score = gui.add_slider("Score from", min=0.0, max=1.0, step=0.001, initial_value=min_score)
    found = gui.add_markdown(counts(view, min_score))
    size = gui.add_slider("Point size, m", min=0.002, max=0.06, step=0.001, initial_value=POINT_SIZE_M)
    shown = gui.add_checkbox("Camera and image", initial_value=True)

    def recolour(_: object) -> None:
        points.colors = colours_of(view, colouring.value, min_score=score.value)
        keys.content = legend(view, colouring.value, min_score=score.value)
        found.content = counts(view, score.value)

    def resize(_: object) -> None:
        points.point_size = size.value

    def show(_: object) -> None:
        camera.visible = shown.value

    colouring.on_update(recolour)
    score.on_update(recolour)
    size.on_update(resize)
    shown.on_update(show)


def _look_from_behind(server: ViserServer, cloud: Cloud) -> None:
    """Pages begin beside and behind the frame's camera, whose image then hides little, and turn about the points."""
    right, _, forward, place = cloud.pose_c2w[:3].T
    server.initial_camera.position = place - BEHIND_M * forward + BESIDE_M * right + np.array([0.0, 0.0, ABOVE_M])
    server.initial_camera.fov = FOV
    server.initial_camera.look_at = np.median(cloud.xyz, axis=0)
