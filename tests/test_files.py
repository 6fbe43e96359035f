"""Files are complete or missing; partial files of killed processes are removed, those of running ones are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import siamese_proto as sp
from siamese_proto.data.databases.database import create_database, open_database
from siamese_proto.export.drawing import draw
from siamese_proto.export.drawing.page import write_page
from siamese_proto.export.drawing.render import render
from siamese_proto.files import replacing
from siamese_proto.graph.ir import Graph
from siamese_proto.net.net import Net
from siamese_proto.weights import StoredState, write_state

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")

NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 5 } }
"""
# creates all of its arguments and waits before it finishes
MAKER = """
import contextlib, sys, time
from siamese_proto.data.databases.database import create_database
from siamese_proto.files import replacing
with contextlib.ExitStack() as stack:
    for path in sys.argv[1:]:
        kind = {".lmdb": "LMDB", ".leveldb": "LEVELDB"}.get(path[path.rindex("."):])
        stack.enter_context(create_database(path, kind) if kind else replacing(path))
    print("making", flush=True)
    sys.stdin.readline()
"""


def graph() -> Graph:
    return sp.build_graph(sp.parse_net(NET), "TEST")


def write_database(path: Path) -> None:
    with create_database(str(path), "LMDB" if path.suffix == ".lmdb" else "LEVELDB", overwrite=True) as writer:
        writer.put([(b"a", b"1")])


def write_weights(path: Path) -> None:
    Net(NET).save_weights(path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "w.caffemodel": write_weights,
    "w.caffemodel.h5": write_weights,
    "w.safetensors": write_weights,
    "w.pt": write_weights,
    "s.solverstate": lambda path: write_state(path, StoredState(1, "w", 0, (np.ones(3, np.float32),))),
    "s.solverstate.h5": lambda path: write_state(path, StoredState(1, "w", 0, (np.ones(3, np.float32),))),
    "net.dot": lambda path: render(draw(graph()), path),
    "net.html": lambda path: write_page(graph(), path),
    "pairs.lmdb": write_database,
    "pairs.leveldb": write_database,
}


@contextmanager
def maker(*paths: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is creating files."""
    command = [sys.executable, "-c", MAKER, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "making\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_next_writer_removes_partial_files_of_a_killed_process(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in WRITERS]
    with maker(*paths) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    other = tmp_path / ".other.caffemodel.0123abcd.partial"
    other.touch()
    assert len(list(tmp_path.glob(".*.partial"))) == len(WRITERS) + 1
    for path in paths:
        WRITERS[path.name](path)
    assert list(tmp_path.glob(".*")) == [other]


def test_partial_files_of_a_running_process_stay(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("w.caffemodel", "pairs.lmdb")]
    with maker(*paths) as process:
        partials = sorted(tmp_path.glob(".*.partial"))
        assert len(partials) == len(paths)
        with replacing(paths[0]) as own:
            write_weights(paths[0])  # while this process is writing it
            assert Path(own).exists()
        assert sorted(tmp_path.glob(".*.partial")) == partials
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.lmdb", "w.caffemodel"]


def test_a_child_that_outlives_a_killed_writer_does_not_keep_its_files(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    code = f"""
import os, sys, time
from siamese_proto.files import replacing
with replacing({str(path)!r}):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            assert len(list(tmp_path.glob(".*.partial"))) == 1
            write_weights(path)
            assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_database_that_a_killed_process_had_moved_away_is_put_back(tmp_path: Path) -> None:
    """Killed between the two renames that replace it: the old database is in the folder of the new one."""
    path = tmp_path / "pairs.lmdb"
    write_database(path)
    partial = tmp_path / ".pairs.lmdb.0123abcd.partial"
    partial.mkdir()
    path.rename(partial / "replaced")
    with pytest.raises(sp.NetError, match="already exists"), create_database(str(path), "LMDB"):
        pass
    with open_database(str(path)) as database:
        assert list(database.records()) == [(b"a", b"1")]
    write_database(path)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.lmdb"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002], ids=oct)
def test_new_files_of_every_kind_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for name, write in WRITERS.items():
            write(tmp_path / name)
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert {path.name for path, mode in modes.items() if mode & umask} == set()
    for path, mode in modes.items():
        if path.parent == tmp_path:
            assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, path.name
