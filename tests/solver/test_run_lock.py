"""One run at a time writes the snapshots of a prefix, and recognizes its own."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_twin import NET, WriteRun

from siamese_proto.cli import main
from siamese_proto.errors import NetError
from siamese_proto.solver import Solver
from siamese_proto.solver.run_lock import run_lock
from siamese_proto.solver.settings import read_settings
from siamese_proto.solver.snapshots import newest_of_run

LONG = {"max_iter": 1_000_000, "display": 0, "snapshot": 1_000_000, "test_interval": 0, "test_iter": None}
# trains with an unfinished snapshot file, until it is told to continue
TRAINER = """
import sys
from siamese_proto.files import replacing
from siamese_proto.solver import Solver
def wait(solver):
    if solver.iteration == 2:
        with replacing("snap_iter_2.caffemodel"):
            print("training", flush=True)
            sys.stdin.readline()
        solver.request_stop()
solver = Solver("solver.prototxt")
solver.callbacks.append(wait)
solver.solve()
"""


@contextmanager
def other_run() -> Iterator[subprocess.Popen[str]]:
    """A process that trains in the working directory and is writing a snapshot."""
    command = [sys.executable, "-c", TRAINER]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_second_run_with_the_prefix_is_refused(write_run: WriteRun) -> None:
    write_run(**LONG)
    with other_run() as process:
        unfinished = list(Path().glob(".snap_iter_2.caffemodel.*.partial"))
        assert len(unfinished) == 1
        message = (
            f"solver.prototxt: another run, process {process.pid}, is writing snapshots with the snapshot_prefix "
            "'snap'; stop it, or give this run another prefix"
        )
        done = CliRunner().invoke(main, ["train", "--solver", "solver.prototxt"])
        assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, message)
        solver = Solver("solver.prototxt")  # without training
        with pytest.raises(NetError) as caught:
            solver.solve()
        assert str(caught.value) == message
        with pytest.raises(NetError, match="another run, process"):
            solver.snapshot()
        solver.close()
        assert list(Path().glob(".snap_iter_2.caffemodel.*.partial")) == unfinished
        Path("other.prototxt").write_text(Path("solver.prototxt").read_text().replace('"snap"', '"snap_2"'))
        solver = Solver("other.prototxt")
        solver.callbacks.append(lambda solver: solver.request_stop())
        solver.solve()
        solver.close()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait() == 0
    assert sorted(path.name for path in Path().glob("*.solverstate")) == [
        "snap_2_iter_1.solverstate",
        "snap_iter_2.solverstate",
    ]
    assert not list(Path().glob(".snap*"))


@pytest.mark.slow
def test_a_run_after_a_killed_one_takes_over_the_prefix(write_run: WriteRun) -> None:
    write_run(**LONG)
    with other_run() as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(list(Path().glob(".snap*"))) == 2  # the mark, and the unfinished snapshot
    write_run(**{**LONG, "max_iter": 1})
    done = CliRunner().invoke(main, ["train", "--solver", "solver.prototxt"])
    assert done.exit_code == 0, done.output
    assert Path("snap_iter_1.solverstate").exists()
    assert not list(Path().glob(".snap*"))


@pytest.mark.slow
def test_runs_without_snapshots_can_share_a_prefix(write_run: WriteRun) -> None:
    write_run(**LONG)
    quiet = {**LONG, "max_iter": 1, "snapshot": 0, "snapshot_after_train": "false"}
    with other_run():
        write_run(**quiet)
        done = CliRunner().invoke(main, ["train", "--solver", "solver.prototxt"])
        assert done.exit_code == 0, done.output


def test_solvers_of_one_process_can_share_a_prefix(write_run: WriteRun) -> None:
    write_run(max_iter=2)
    outer = Solver("solver.prototxt")
    inner = Solver("solver.prototxt")
    outer.callbacks.append(lambda _: inner.solve())
    outer.solve()
    outer.close()
    inner.close()
    assert not list(Path().glob(".snap*"))


def test_a_file_system_without_locks_is_warned_about(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(handle: int, operation: int) -> None:  # there is no such file system here
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    solver = Solver(write_run(max_iter=1))
    solver.solve()
    solver.close()
    mark = Path(".snap.running").absolute()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        f"{mark}: cannot be locked ({os.strerror(errno.ENOLCK)}); make sure that no other run uses this snapshot_prefix"
    ]
    assert Path("snap_iter_1.solverstate").exists()
    assert not list(Path().glob(".snap*"))


def test_a_folder_that_is_not_writable_is_one_error_line(write_run: WriteRun) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("the system has no /proc")
    write_run(snapshot_prefix='"/proc/snap"')
    done = CliRunner().invoke(main, ["train", "--solver", "solver.prototxt"])
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("the folder for snapshots, '/proc', cannot be written to (")


@pytest.mark.parametrize("later", [1.0, 4e9], ids=["1970", "2096"])
def test_a_restarted_run_continues_from_its_own_snapshots(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch, later: float
) -> None:
    solver = Solver(write_run(NET, test_interval=0, test_iter=None, snapshot=0))
    settings = read_settings(Path("solver.prototxt"))
    solver.step(3)
    solver.snapshot()  # of another run, with a higher iteration
    solver.restore("snap_iter_3.solverstate")
    os.utime("snap_iter_3.solverstate", (5e8, 5e8))
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    with suppress(KeyboardInterrupt), run_lock(settings) as run:
        assert newest_of_run("snap", run) is None  # it has not been restarted yet
        solver.iteration = 1
        own = solver.snapshot()
        os.utime(own, (later, later))
        raise KeyboardInterrupt
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with suppress(KeyboardInterrupt), run_lock(settings) as again:
        assert again == run
        assert newest_of_run("snap", again) == own
        raise KeyboardInterrupt
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    with run_lock(settings) as again:
        assert newest_of_run("snap", again) == own
    with run_lock(settings) as new:  # after a run that succeeded
        assert new != run
        assert newest_of_run("snap", new) is None
    assert not list(Path().glob(".snap*"))
    solver.close()
