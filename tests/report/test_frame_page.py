"""The page in the browser: served where it says, told apart from what else is there, ended quietly."""

from __future__ import annotations

import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ditr.errors import Code, DitrError
from ditr.report.frame_colours import colours_of
from ditr.report.pages import frame, page
from tests.ports import free_port
from tests.reference.hand_made_frame import POSE, hand_made


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize("features", [True, False])
def test_the_page_is_served_at_its_address_until_ctrl_c(
    port: int, capfd: pytest.CaptureFixture[str], features: bool
) -> None:
    answers: list[tuple[str, int, bytes]] = []

    def ready(url: str) -> None:
        with urllib.request.urlopen(url, timeout=20) as answer:
            answers.append((url, answer.status, answer.read()))
        raise KeyboardInterrupt

    page.require_place("localhost", port, instead=frame.INSTEAD)
    frame.serve(hand_made(features=features), run="run-s0", best_score=0.5, host="localhost", port=port, ready=ready)
    ((url, status, body),) = answers
    assert (url, status) == (f"http://localhost:{port}", 200)
    assert b"<html" in body
    assert capfd.readouterr() == ("", ""), "viser says nothing of its own"
    page.require_place("localhost", port, instead=frame.INSTEAD)


def test_without_viser_the_message_has_the_command(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(DitrError, match="needs viser") as error:
        page.require_place("localhost", port, instead=frame.INSTEAD)
    assert error.value.code is Code.ENVIRONMENT
    assert "pip install 'ditr[view]'" in error.value.fix


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_refused_with_another(taken: int, host: str) -> None:
    with pytest.raises(DitrError, match="already in use") as error:
        page.require_place(host, taken, instead=frame.INSTEAD)
    assert error.value.where == f"{host}:{taken}"
    assert "--port" in error.value.fix


def test_a_host_that_is_not_this_machine_is_refused(port: int) -> None:
    with pytest.raises(DitrError, match="cannot be served"):
        page.require_place("192.0.2.1", port, instead=frame.INSTEAD)
    with pytest.raises(DitrError, match="cannot be served"):
        page.require_place("no.such.host.invalid", port, instead=frame.INSTEAD)


def test_a_port_that_is_taken_at_the_last_moment_is_not_swapped_for_another(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_VISER_PORT_OVERRIDE", str(free_port()))  # viser's own way to another port than was asked for
    with pytest.raises(DitrError, match="it was taken"):
        frame.serve(
            hand_made(),
            run="run-s0",
            best_score=0.5,
            host="127.0.0.1",
            port=port,
            ready=lambda url: pytest.fail(f"served at {url}"),
        )


def test_an_address_that_the_machine_lacks_is_passed_over(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers, whose localhost is ::1 too, without IPv6."""
    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: both)
    assert page.require_place("localhost", port, instead=frame.INSTEAD) == "127.0.0.1"


def test_counts_follow_the_score() -> None:
    view = hand_made()
    assert frame.counts(view, 0.5) == "**2** of 3 predictions shown, **1** of 2 instances found at IoU 0.5"
    assert frame.counts(view, 0.0) == "**3** of 3 predictions shown, **2** of 2 instances found at IoU 0.5"


def test_the_legend_is_text_in_colours() -> None:
    assert "right 33%" in frame.legend(hand_made(), "disagreement", min_score=0.5)
    assert "#2a9d4b" in frame.legend(hand_made(), "disagreement", min_score=0.5)
    assert frame.legend(hand_made(), "colour", min_score=0.5) == ""


def test_the_frustum_is_the_frames_camera(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Its corners, by viser's convention, are where the corners of the image are."""
    import viser
    from viser.transforms import SO3

    view, server = hand_made(), viser.ViserServer(host="127.0.0.1", port=port, verbose=False)
    try:
        frustum = page.add_camera(server, view.in_space, image=view.image)
        half = np.tan(frustum.fov / 2)
        corner = SO3(frustum.wxyz).as_matrix() @ [half * frustum.aspect, half, 1] + frustum.position
    finally:
        server.stop()
    u, v = 63.5, 47.5  # the lower right corner of the last pixel
    expected = POSE @ [(u - 31.5) / 50, (v - 23.5) / 50, 1, 1]
    np.testing.assert_allclose(corner, expected[:3], atol=1e-6)


def test_the_controls_change_the_scene(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import viser

    view, server = hand_made(), viser.ViserServer(host="127.0.0.1", port=port, verbose=False)
    made: dict[str, Any] = {}

    def recorded(add: Callable[..., Any]) -> Callable[..., Any]:
        def adds(name: str, *given: Any, **named: Any) -> Any:
            made[name] = add(name, *given, **named)
            return made[name]

        return adds

    for of, names in (
        (server.gui, ("dropdown", "slider", "checkbox")),
        (server.scene, ("point_cloud", "camera_frustum")),
    ):
        for name in names:
            monkeypatch.setattr(of, f"add_{name}", recorded(getattr(of, f"add_{name}")))
    try:
        frame._fill(server, view, run="run-s0", best_score=0.5)
        cloud, camera = made["/points"], made["/camera"]
        assert np.array_equal(cloud.points, view.in_space.xyz)
        assert np.array_equal(cloud.colors, colours_of(view, "prediction", min_score=0.5))
        assert made["Score from"].value == 0.5
        made["Colours"].value = "disagreement"
        eventually(lambda: np.array_equal(cloud.colors, colours_of(view, "disagreement", min_score=0.5)))
        made["Score from"].value = 0.2
        eventually(lambda: np.array_equal(cloud.colors, colours_of(view, "disagreement", min_score=0.2)))
        made["Point size, m"].value = 0.05
        eventually(lambda: cloud.point_size == 0.05)
        assert camera.visible
        made["Camera and image"].value = False
        eventually(lambda: not camera.visible)
    finally:
        server.stop()


def eventually(happened: Callable[[], bool]) -> None:
    """Callbacks run in threads of viser's."""
    for _ in range(100):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("nothing changed")
