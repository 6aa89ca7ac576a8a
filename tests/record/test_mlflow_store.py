"""MLflow's store in trouble: what it is, is said within seconds; no record suffers, and what it lacks comes later."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ditr.cli import main as cli
from ditr.record.folder import Record
from ditr.record.views import mlflow_store
from ditr.record.views.mlflow_store import LocalStore, StoreError
from ditr.record.views.mlflow_view import MlflowView
from ditr.record.views.teller import Teller
from tests.ports import free_port

# Of libraries under MLflow, not of ditr.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
Harm = Callable[[Path], None]


@pytest.fixture
def folder(make_run, migrated_store: Path, monkeypatch: pytest.MonkeyPatch) -> Record:  # type: ignore[no-untyped-def]
    made: Record = make_run("base", key="0000000001")
    shutil.copy(migrated_store, made.path.parent / "mlflow.db")
    monkeypatch.setenv("DITR_RUNS", str(made.path.parent))
    monkeypatch.setattr(mlflow_store, "_LOCKED_S", 0.1)
    monkeypatch.setattr(mlflow_store, "migrate", lambda path, *, artefacts: shutil.copy(migrated_store, path))
    return made


def names(store: str) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    return sorted(run.data.tags["ditr.folder"] for run in client.search_runs(everywhere, "tags.`ditr.level` = 'run'"))


def ditr(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["ditr", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0), capsys.readouterr().err


def sql(*statements: str) -> Harm:
    def harm(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return harm


HARMS: dict[str, Harm] = {
    "no database": lambda path: path.write_bytes(b"damaged"),
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a newer MLflow's": sql("UPDATE alembic_version SET version_num = 'fffffffff000'"),
    "an older MLflow's": sql("UPDATE alembic_version SET version_num = '451aebb31d03'"),
    "without a revision": sql("DELETE FROM alembic_version"),
    "a column short": sql("ALTER TABLE runs DROP COLUMN deleted_time"),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_damaged_store_is_said_at_once_and_made_anew_of_the_records(harm: Harm, folder: Record) -> None:
    store = folder.path.parent / "mlflow.db"
    harm(store)
    view, said, began = MlflowView(folder.path.parent), list[str](), time.monotonic()
    with Teller([view], say=said.append) as teller:
        teller.tell(folder)
    assert time.monotonic() - began < 10
    (line,) = said
    assert line.startswith(f"mlflow.db lacks {folder.name}: ")
    assert "ditr results rebuild" in line
    assert view.rebuild() == 1
    view.catch_up()
    assert names(LocalStore(folder.path.parent).uri) == [folder.name]


@pytest.mark.parametrize("command", ["ui", "sync"])
def test_a_command_that_needs_a_locked_store_says_so_and_its_exit_code_is_2(
    command: str, folder: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = folder.path.parent / "mlflow.db"
    with closing(sqlite3.connect(store)) as other:
        other.execute("BEGIN EXCLUSIVE")
        code, said = ditr(command, monkeypatch=monkeypatch, capsys=capsys)
        assert (code, said.count("error["), "locked" in said) == (2, 1, True)
    code, said = ditr("sync", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, said) == (0, "")
    assert names(LocalStore(folder.path.parent).uri) == [folder.name]


def test_what_a_killed_program_left_beside_the_store_is_not_played_into_a_new_one(folder: Record) -> None:
    """A hot journal of SQLite's belongs to whatever file has the name."""
    view, store = MlflowView(folder.path.parent), folder.path.parent / "mlflow.db"
    view.catch_up()
    code = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 2')\n"
        "c.execute('BEGIN')\n"
        "[c.execute(f'CREATE TABLE t{i} AS SELECT hex(randomblob(4000)) AS x') for i in range(50)]\n"
        "c.execute('UPDATE tags SET value = hex(randomblob(500))')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(store)], check=False)
    assert store.with_name("mlflow.db-journal").stat().st_size > 10_000, "it was killed with a journal"
    assert view.rebuild() == 1
    assert names(view.store.uri) == [folder.name]
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A server that answers everything with the same, or with nothing at all; it ends with the block."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(100):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


def page(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


ANSWERS = {
    "hangs": (None, "no server of MLflow's answers there (no answer in time)"),
    "is none of MLflow's": (page("200 OK", "<html>hello</html>"), "it does not answer as a server of MLflow's does"),
    "fails": (page("500 Internal Server Error", "no"), "it does not answer as a server of MLflow's does"),
    "refuses": (b"", "no server of MLflow's answers there (connection refused)"),
}


@pytest.mark.parametrize(("answer", "why"), ANSWERS.values(), ids=ANSWERS)
def test_a_server_in_trouble_stops_nothing_and_is_one_line_within_its_time(
    answer: bytes | None, why: str, folder: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with listening(answer) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri if answer != b"" else f"http://127.0.0.1:{free_port()}")
        view, said, began = MlflowView(folder.path.parent), list[str](), time.monotonic()
        with Teller([view], say=said.append) as teller:
            teller.tell(folder)
        assert time.monotonic() - began < 10
        (line,) = said
        assert line.startswith(f"{view.name} lacks {folder.name}: {why}")
        code, said_of_ui = ditr("ui", monkeypatch=monkeypatch, capsys=capsys)
        assert (code, said_of_ui.count("error[")) == (2, 1)


def test_an_address_of_no_server_is_one_line_too(folder: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    word = "secret"  # not in one with the address, which would look like a true one
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:{word}@db/mlflow")
    with pytest.raises(StoreError) as error:
        MlflowView(folder.path.parent).catch_up()
    assert "mlflow server" in error.value.fix
    assert "secret" not in str(error.value) + MlflowView(folder.path.parent).name


def test_the_project_names_a_server_and_the_environment_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ditr.toml").write_text('[tracking]\nmlflow = "http://127.0.0.1:5001/"\n')
    monkeypatch.chdir(tmp_path)
    assert MlflowView(tmp_path).store.uri == "http://127.0.0.1:5001"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5002")
    assert MlflowView(tmp_path).store.uri == "http://127.0.0.1:5002"


class Server:
    """A real server of MLflow's, with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: Any = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(
            command,
            env=os.environ | quiet,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path, migrated_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    shutil.copy(migrated_store, tmp_path / "server/server.db")
    made = Server(tmp_path / "server")
    made.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield made
    made.kill()


@pytest.mark.slow
def test_a_server_is_told_dies_midway_and_is_brought_up_to_date(
    folder: Record,
    make_run,  # type: ignore[no-untyped-def]
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mlflow import MlflowClient

    runs, others = folder.path.parent, tmp_path / "others"
    others.mkdir()
    shutil.copytree(folder.path, others / folder.name)
    MlflowView(others).catch_up()
    view = MlflowView(runs)
    view.catch_up()
    view.catch_up()
    assert names(server.uri) == [folder.name] * 2, "one of each folder of records, none twice"
    second = make_run("base", key="0000000002", seed=1)
    third = make_run("late", key="0000000003")

    def log_and_die(self: Any, *arguments: Any, **named: Any) -> Any:
        server.kill()
        return honest(self, *arguments, **named)

    honest = MlflowClient.log_batch
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", log_and_die)
        said, began = list[str](), time.monotonic()
        with Teller([view], say=said.append) as teller:
            teller.tell(second)
            teller.tell(third)
        assert time.monotonic() - began < 30
    assert len(said) == 1
    server.start()
    code, err = ditr("sync", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, err) == (0, "")
    assert names(server.uri) == sorted([folder.name] * 2 + [second.name, third.name])
    shutil.rmtree(third.path)
    assert view.rebuild() == 2
    assert names(server.uri) == sorted([folder.name] * 2 + [second.name]), "what is another's stays"
    page = next(iter(view.pages().values()))
    assert page.startswith("#/experiments/")


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "https://h:port", "http://[h", "http://127.0.0.1/?t=1"])
def test_no_password_of_an_address_is_told(
    address: str, folder: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither of an address that nobody answers, in words of MLflow's, nor of one that can be none."""
    address = address.format(port=free_port())
    word = "hunter2"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("://", f"://user:{word}@").replace("t=1", f"t={word}"))
    code, said = ditr("sync", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert "MLflow at http" in said
    assert word not in said


@pytest.mark.parametrize("password", ["a#b", "a/b", "a b", "a?b", "a@b"])
def test_a_password_with_marks_of_addresses_is_not_told_either(password: str) -> None:
    assert mlflow_store.without_password(f"no: http://me:{password}@host:1/x?token=1 y") == "no: http://host:1/x y"


@pytest.mark.parametrize("said", ["", "' or '", "\udcff", "0" * 31])
def test_an_owner_that_is_none_marks_and_deletes_no_run(said: str, folder: Record) -> None:
    runs = folder.path.parent
    (runs / mlflow_store.OWNER_FILE).write_bytes(said.encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match="not what ditr wrote"):
        mlflow_store.owned(mlflow_store.ServerStore(runs, "http://127.0.0.1:1"))


def test_a_copy_of_a_folder_of_records_owns_none_of_its_runs_and_a_renamed_one_all(tmp_path: Path) -> None:
    def owner(runs: Path) -> str:
        return mlflow_store.ServerStore(runs, "http://127.0.0.1:1").owner

    runs, copy, renamed = tmp_path / "runs", tmp_path / "copy", tmp_path / "renamed"
    runs.mkdir()
    first = owner(runs)
    shutil.copytree(runs, copy)
    of_copy = owner(copy)
    assert of_copy not in (first, "")
    assert (owner(copy), owner(runs)) == (of_copy, first), "each stays"
    assert owner(runs.rename(renamed)) == first


def test_an_owner_of_an_earlier_version_stays_and_is_of_this_folder_from_now_on(tmp_path: Path) -> None:
    first = "0123456789abcdef" * 2
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / mlflow_store.OWNER_FILE).write_text(first + "\n")
    assert mlflow_store.ServerStore(tmp_path / "runs", "http://127.0.0.1:1").owner == first
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    assert mlflow_store.ServerStore(tmp_path / "copy", "http://127.0.0.1:1").owner != first
