"""A frame that a run saw as a page in the browser: its points in 3D, in colours of choice. The only one with viser."""

from __future__ import annotations

import errno
import io
import socket
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ditr.data.frame_view import Cloud, FrameView
from ditr.errors import Code, DitrError
from ditr.evaluation.point_outcomes import least_shown, point_outcomes
from ditr.report.frame_colours import Colouring, colourings, colours_of, keys_of

if TYPE_CHECKING:
    from viser import CameraFrustumHandle, ViserServer

FIRST: Colouring = "prediction"
"""The colouring that the page begins with."""
POINT_SIZE_M = 0.025
FRUSTUM_M, EDGE_M = 0.18, 0.005
"""Distance of the image from the camera, and the thickness of the lines."""
BEHIND_M, BESIDE_M, ABOVE_M = 0.8, 0.7, 0.4
"""Where a page begins to look from, seen from the frame's camera."""
FOV = 1.0
"""Vertical, in radians."""


def require_place(host: str, port: int) -> str:
    """The address to serve on, before any work is done: viser is there, and nothing is served at ``host`` and ``port``.

    Of the addresses of a name the machine may lack some, as containers lack IPv6; IPv4 comes first.

    Raises
    ------
    DitrError: it is not so; viser would take another port without a word.
    """
    try:
        import viser  # noqa: F401
    except ImportError as error:
        fix = "pip install 'ditr[view]', or draw the frame as a picture: --out FILE.png"
        raise DitrError("the 3D view needs viser", code=Code.ENVIRONMENT, where="ditr view", fix=fix) from error
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        free = [(family, str(address[0])) for family, _, _, _, address in found if _is_free(family, address)]
    except OSError as error:
        raise _no_place(host, port, error.strerror or str(error)) from error
    if not free:
        raise _no_place(host, port, "this machine has no such address")
    return min(free)[1]


def _is_free(family: int, address: tuple[Any, ...]) -> bool:
    """False where the machine has no such address; raises OSError where it has and something is served there."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return False
        raise
    return True


def serve(view: FrameView, *, run: str, best_score: float, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves the page until Ctrl-C; ``ready`` takes its address once it is there.

    Raises
    ------
    DitrError: as ``require_place``, or the port was taken meanwhile.
    """
    address = require_place(host, port)
    import viser

    with redirect_stdout(io.StringIO()):  # viser's own greeting
        server = viser.ViserServer(host=address, port=port, label="ditr view", verbose=False)
    try:
        if server.get_port() != port:
            raise _no_place(host, port, "it was taken")
        _fill(server, view, run=run, best_score=best_score)
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        with redirect_stdout(io.StringIO()):
            server.stop()


def counts(view: FrameView, min_score: float) -> str:
    """What is shown and found, in one sentence of Markdown."""
    outcomes = point_outcomes(view, min_score=min_score)
    return (
        f"**{outcomes.shown}** of {len(view.predicted.scores)} predictions shown, "
        f"**{outcomes.found}** of {outcomes.total} instances found at IoU 0.5"
    )


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
    camera = add_camera(server, view)
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


def add_camera(server: ViserServer, view: FrameView) -> CameraFrustumHandle:
    """The frame's camera with its image; the image's middle stands for the principal point."""
    from viser.transforms import SO3

    cloud = view.in_space
    camera = cloud.intrinsics
    return server.scene.add_camera_frustum(
        "/camera",
        fov=2 * float(np.arctan2(camera.height / 2, camera.fy)),
        aspect=(camera.width / camera.fx) / (camera.height / camera.fy),
        scale=FRUSTUM_M,
        thickness=EDGE_M,
        image=view.image,
        wxyz=SO3.from_matrix(cloud.pose_c2w[:3, :3]).wxyz,
        position=cloud.pose_c2w[:3, 3],
    )


def _look_from_behind(server: ViserServer, cloud: Cloud) -> None:
    """Pages begin beside and behind the frame's camera, whose image then hides little, and turn about the points."""
    right, _, forward, place = cloud.pose_c2w[:3].T
    server.initial_camera.position = place - BEHIND_M * forward + BESIDE_M * right + np.array([0.0, 0.0, ABOVE_M])
    server.initial_camera.fov = FOV
    server.initial_camera.look_at = np.median(cloud.xyz, axis=0)


def _no_place(host: str, port: int, why: str) -> DitrError:
    fix = f"End what serves there, or choose another port: --port {port + 1 if port < 65535 else 8080}"
    return DitrError(f"the page cannot be served: {why}", code=Code.ENVIRONMENT, where=f"{host}:{port}", fix=fix)
