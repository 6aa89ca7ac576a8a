"""``python -m ditr``: the ``ditr`` command."""

from __future__ import annotations

from ditr.cli.main import main

if __name__ == "__main__":
    main()
