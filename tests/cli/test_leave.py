"""The end of a command whose views are slow."""

from __future__ import annotations

import subprocess
import sys

SLOW = """
import duckdb
from ditr.cli.host import leave
from ditr.record.views import teller

class Slow:
    name = "slow"
    def tell(self, folders):
        for _ in range(5000):
            duckdb.sql("select count(*) from range(300000)").fetchall()
    def catch_up(self):
        self.tell(())
    rebuild = catch_up

teller.PATIENCE_S = 0.2
with teller.Teller([Slow()], say=print):
    pass
leave(7)
"""


def test_a_view_that_is_still_told_does_not_change_how_a_command_ends() -> None:
    """Left to Python, the thread within DuckDB ends the process by SIGABRT, and a job counts as one that died."""
    ended = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 7, ended.stderr
    assert "takes longer than" in ended.stdout
