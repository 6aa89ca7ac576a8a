"""What killed processes leave of files, and who takes it away."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ditr.errors import DitrError
from ditr.files import abandoned, replacing, write_text
from ditr.record.folder import Record, records_in
from ditr.record.recording import DRAFTS, draft

KILLED = """
import os, signal, sys
from pathlib import Path
from ditr.files import replacing
from ditr.record.recording import draft
{work}
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while(work: str) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED.format(work=work)], check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("alone", [False, True])
def test_what_a_killed_process_left_of_a_file_goes_when_it_is_written_again(tmp_path: Path, alone: bool) -> None:
    file, other = tmp_path / "a.json", tmp_path / "b.json"
    for path in (file, other):
        kill_while(f"with replacing(Path({str(path)!r}), alone={alone}) as beside:\n    beside.write_text('half')")
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(file, alone=alone) as beside:
        beside.write_text("whole")
    assert sorted(path.name[:3] for path in tmp_path.iterdir()) == [".b.", "a.j"], "of this file, and of no other"
    assert file.read_text() == "whole"


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    work = (
        f"with replacing(Path({str(file)!r})) as beside:\n    beside.write_text('slow'); print(1, flush=True); input()"
    )
    code = KILLED.format(work=work).replace("os.kill(os.getpid(), signal.SIGKILL)", "pass")
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as slow:
        assert slow.stdout is not None
        assert slow.stdout.readline() == "1\n"
        write_text(file, "fast")
        slow.communicate("\n")
    assert slow.returncode == 0
    assert file.read_text() == "slow", "who ends last has written last"
    assert list(tmp_path.iterdir()) == [file]


def test_many_that_write_one_file_at_once_disturb_each_other_in_nothing(tmp_path: Path) -> None:
    code = "from pathlib import Path\nfrom ditr.files import write_text\nimport sys\n"
    code += f"for number in range(300): write_text(Path({str(tmp_path / 'a.json')!r}), sys.argv[1] * 1000)"
    writers = [subprocess.Popen([sys.executable, "-c", code, text]) for text in "abcd"]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    (file,) = tmp_path.iterdir()
    assert file.read_text() in {text * 1000 for text in "abcd"}


def test_drafts_of_killed_processes_go_and_those_of_living_ones_and_of_bugs_stay(tmp_path: Path) -> None:
    kill_while(f"with draft(Path({str(tmp_path)!r}), name='killed') as work:\n    work.folder.result.write_text('x')")
    (left,) = (tmp_path / DRAFTS).glob("killed-*")
    with abandoned(left.with_name(f".{left.name}.claim")) as dead:
        assert dead
    with pytest.raises(ZeroDivisionError), draft(tmp_path, name="bug"):
        raise ZeroDivisionError
    with draft(tmp_path, name="alive") as alive:
        with pytest.raises(DitrError), draft(tmp_path, name="other"):
            raise DitrError("wrong", code="run")  # type: ignore[arg-type]
        assert alive.folder.path.is_dir()
        names = sorted(path.name.partition("-")[0] for path in (tmp_path / DRAFTS).iterdir())
        assert names == [".alive", "alive", "bug"]
    assert records_in(tmp_path) == ()
    assert not Record(tmp_path / DRAFTS / left.name).path.exists()
