"""Ctrl-C, SIGTERM and SIGHUP in a command that has nothing to save: one message, exit code 130, no traceback."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

from ditr.runner.stop import StopSignal

ASKED = """
import os, signal, sys
from ditr.cli import data
from ditr.cli.main import main

def slow(*arguments, **named):
    for number in {numbers}:
        try:
            os.kill(os.getpid(), number)
        finally:
            {after}

data._embedded = slow
sys.argv = ["ditr", "data", "make", "synthrooms_tiny"]
main()
"""


def asked(*numbers: signal.Signals, after: str = "pass", **named: object) -> subprocess.CompletedProcess[str]:
    code = ASKED.format(numbers=[int(number) for number in numbers], after=after)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **named)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_ends_a_command_in_order_and_the_second_at_once(number: signal.Signals) -> None:
    once = asked(number)
    assert (once.returncode, once.stderr) == (
        130,
        "stopped; no file is half written, the same command can be given again\n",
    )
    twice = asked(number, after="os.kill(os.getpid(), signal.SIGTERM)")
    assert (twice.returncode, twice.stderr) == (130, "\nstopped at once\n")


@pytest.mark.parametrize("where", ["main.app", "main.TyperGroup.parse_args"])
def test_a_stop_before_there_is_a_command_is_one_too(where: str) -> None:
    """Typer takes a tenth of a second to know the commands, and then reads what was typed."""
    code = "import os, signal\nfrom ditr.cli import main\n"
    code += f"def kill(*a, **k): os.kill(os.getpid(), signal.SIGINT)\n{where} = kill\nmain.main()"
    ended = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True, check=False)
    assert (ended.returncode, "stopped; " in ended.stderr, "Traceback" in ended.stderr) == (130, True, False)


def test_what_a_stop_breaks_is_a_stop() -> None:
    """A worker that hears the signal too may break its pool before this process has answered."""
    broken = asked(signal.SIGTERM, after="raise RuntimeError('the pool is broken')")
    assert (broken.returncode, "stopped; " in broken.stderr, "Traceback" in broken.stderr) == (130, True, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_whoever_started_it_has_ignored_goes_on_being_ignored(number: signal.Signals) -> None:
    """Ctrl-C in a job of the background, and SIGHUP by nohup."""
    ignored = asked(number, preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    assert "stopped" not in ignored.stderr
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_shell_that_repeats_that_the_terminal_is_gone_does_not_insist() -> None:
    told = asked(signal.SIGHUP, after="os.kill(os.getpid(), signal.SIGHUP)")
    assert (told.returncode, "stopped; " in told.stderr) == (130, True)


RUNNING = """
import os, sys, time
from ditr.runner.stop import StopSignal

with StopSignal() as stop:
    print("runs", flush=True)
    until = time.monotonic() + 20
    while not stop.asked and time.monotonic() < until:
        time.sleep(0.01)
    print("saving", flush=True)
    os.write(int(sys.argv[1]), b"saved" if stop.asked else b"not asked")
"""


def test_a_run_whose_terminal_is_closed_saves_and_stops() -> None:
    """What it says meanwhile goes to a terminal that is gone."""
    saved, tells = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        os.set_inheritable(tells, True)
        os.execv(sys.executable, [sys.executable, "-c", RUNNING, str(tells)])
    os.close(tells)
    assert b"runs" in os.read(terminal, 100)
    os.close(terminal)
    with open(saved, "rb") as file:
        assert file.read() == b"saved"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
