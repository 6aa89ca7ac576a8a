"""A figure as a picture on the disk."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from ditr.files import replacing


def save_figure(figure: Figure, path: Path) -> None:
    """Writes it as PNG, whatever the name ends with; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False) as beside:
        figure.savefig(beside, format="png")
