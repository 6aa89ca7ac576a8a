"""A page of viser's in the browser: served where it says, told apart from what else is there, ended quietly."""

from __future__ import annotations

import errno
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np

from ditr.data.frame_view import Cloud
from ditr.errors import Code, DitrError

if TYPE_CHECKING:
    from viser import CameraFrustumHandle, ViserServer

FRUSTUM_M, EDGE_M = 0.18, 0.005
"""Distance of the image from the camera, and the thickness of the lines."""
_NOWHERE = np.zeros(3)


@contextmanager
def open_page(host: str, port: int, *, label: str, instead: str) -> Iterator[ViserServer]:
    """Served while the block runs.

    Raises
    ------
    DitrError: as ``require_place``, or the port was taken meanwhile.
    """
    place = require_place(host, port, instead=instead)
    import viser

    with redirect_stdout(io.StringIO()):  # viser's own greeting
        server = viser.ViserServer(host=place, port=port, label=label, verbose=False)
    try:
        if server.get_port() != port:
            raise _no_place(host, port, "it was taken")
        yield server
    finally:
        with redirect_stdout(io.StringIO()):
            server.stop()


def address(host: str, port: int) -> str:
    """Of a page, for a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def require_place(host: str, port: int, *, instead: str) -> str:
    """The address to serve on, before any work is done: viser is there, and nothing is served at ``host`` and ``port``.

    Of the addresses of a name the machine may lack some, as containers lack IPv6; IPv4 comes first.

    Parameters
    ----------
    instead: what to do without viser, in the imperative.

    Raises
    ------
    DitrError: it is not so; viser would take another port without a word.
    """
    try:
        import viser  # noqa: F401
    except ImportError as error:
        fix = f"pip install 'ditr[view]', or {instead}"
        raise DitrError("the 3D view needs viser", code=Code.ENVIRONMENT, fix=fix) from error
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


def add_camera(
    server: ViserServer, cloud: Cloud, *, image: np.ndarray, shift: np.ndarray = _NOWHERE
) -> CameraFrustumHandle:
    """A frame's camera with its image (H, W, 3), moved by ``shift`` (3,); the image's middle stands for the principal
    point."""
    from viser.transforms import SO3

    camera = cloud.intrinsics
    return server.scene.add_camera_frustum(
        "/camera",
        fov=2 * float(np.arctan2(camera.height / 2, camera.fy)),
        aspect=(camera.width / camera.fx) / (camera.height / camera.fy),
        scale=FRUSTUM_M,
        thickness=EDGE_M,
        image=image,
        wxyz=SO3.from_matrix(cloud.pose_c2w[:3, :3]).wxyz,
        position=cloud.pose_c2w[:3, 3] + shift,
    )


def _no_place(host: str, port: int, why: str) -> DitrError:
    fix = f"End what serves there, or choose another port: --port {port + 1 if port < 65535 else 8080}"
    return DitrError(f"the page cannot be served: {why}", code=Code.ENVIRONMENT, where=f"{host}:{port}", fix=fix)
