"""The formats that are read, one module each; all of them by name."""

from __future__ import annotations

from ditr.captures.capture import Format
from ditr.captures.formats import arkitscenes, esam, record3d, replica, rgbd, tum

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (tum.FORMAT, record3d.FORMAT, replica.FORMAT, arkitscenes.FORMAT, rgbd.FORMAT, esam.FORMAT)
}
