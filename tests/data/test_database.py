from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from feeding import BACKENDS, GOLDEN, copied, make_database, noise, tool

from siamese_proto.data.databases.database import create_database, guess_backend, open_database
from siamese_proto.data.databases.leveldb_store import _library
from siamese_proto.errors import DataError

SOURCES = {"LEVELDB": "flagship/pairs_leveldb", "LMDB": "flagship/pairs_lmdb"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_records_come_in_the_order_of_their_keys(backend, tmp_path):
    with create_database(str(tmp_path / "made"), backend) as writer:
        writer.put([(b"b", b"2"), (b"d", b"4")])
        writer.put([(b"a", b"1"), (b"c", b"3")])
    with open_database(str(tmp_path / "made"), backend) as database:
        assert list(database.records()) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4")]
        assert list(database.records(b"c")) == [(b"c", b"3"), (b"d", b"4")]
        assert list(database.keys()) == [b"a", b"b", b"c", b"d"]
        assert database.count() == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_database_of_caffe_is_read(backend):
    with open_database(str(GOLDEN / SOURCES[backend]), backend) as database:
        keys = list(database.keys())
    assert keys == [b"%08d" % number for number in range(640)]


def test_lmdb_and_leveldb_of_the_flagship_hold_the_same_records():
    with (
        open_database(str(GOLDEN / SOURCES["LMDB"])) as lmdb,
        open_database(str(GOLDEN / SOURCES["LEVELDB"])) as leveldb,
    ):
        assert list(lmdb.records()) == list(leveldb.records())


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_readers_can_share_a_process(backend, tmp_path):
    path = copied(SOURCES[backend], tmp_path)
    with open_database(path, backend) as first:
        walking = first.records()
        start = [next(walking) for _ in range(3)]
        with open_database(path, backend) as second:
            assert [key for key, _ in second.records()][:3] == [key for key, _ in start]
        assert sum(1 for _ in walking) == 637


def test_an_lmdb_can_be_opened_by_its_file():
    with open_database(str(GOLDEN / "flagship/pairs_lmdb/data.mdb"), "LMDB") as database:
        assert database.count() == 640


@pytest.mark.parametrize("backend", BACKENDS)
def test_reading_changes_nothing_in_the_folder(backend, tmp_path):
    path = Path(copied(SOURCES[backend], tmp_path))
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()}
    for _ in range(2):
        with open_database(str(path), backend) as database:
            assert database.count() == 640
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()} == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_read_only_folder_can_be_read(backend, tmp_path):
    path = Path(copied(SOURCES[backend], tmp_path))
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)
    try:
        with open_database(str(path), backend) as database:
            assert database.count() == 640
    finally:
        path.chmod(0o755)


def test_a_leveldb_that_another_process_holds_open_is_read(tmp_path):
    path = make_database(tmp_path / "made", [noise(1, 2, 3)] * 5)
    holder = "import sys; from siamese_proto.data.databases.leveldb_store import _library;"
    holder += f"d = _library().DB({path!r}); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with open_database(path) as database:
            assert database.count() == 5
        process.communicate()


def test_private_views_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "views"))
    (tmp_path / "views").mkdir()
    path = make_database(tmp_path / "made", [noise(1, 2, 3)])
    database = open_database(path)
    assert len(list((tmp_path / "views").iterdir())) == 1
    database.close()
    database.close()
    assert list((tmp_path / "views").iterdir()) == []


def test_a_reader_that_is_never_closed_leaves_no_view_at_exit(tmp_path):
    path = make_database(tmp_path / "made", [noise(1, 2, 3)])
    (tmp_path / "views").mkdir()
    code = (
        f"from siamese_proto.data.databases.database import *; d = open_database({path!r}); print(next(d.records())[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path / "views")}, capture_output=True
    )
    assert (done.stdout, done.stderr) == (b"b'00000000'\n", b"")
    assert list((tmp_path / "views").iterdir()) == []


@pytest.mark.slow
def test_an_lmdb_grows_past_its_first_map(tmp_path):
    value = bytes(1 << 20)
    with create_database(str(tmp_path / "big"), "LMDB") as writer:
        for number in range(0, 80, 10):
            writer.put([(b"%08d" % key, value) for key in range(number, number + 10)])
    with open_database(str(tmp_path / "big"), "LMDB") as database:
        assert sum(len(value) for _, value in database.records()) == 80 << 20


def test_the_standard_tools_read_our_lmdb(tmp_path):
    path = make_database(tmp_path / "made", [noise(2, 3, 5)] * 7, "LMDB")
    status = subprocess.run([tool("mdb_stat"), path], capture_output=True, text=True, check=True).stdout
    assert "Entries: 7" in status
    dump = subprocess.run([tool("mdb_dump"), path], capture_output=True, text=True, check=True).stdout
    lines = dump.partition("HEADER=END\n")[2].splitlines()
    with open_database(path) as database:
        expected = [part.hex() for record in database.records() for part in record]
    assert [line.strip() for line in lines if line.startswith(" ")] == expected


def test_the_systems_own_leveldb_reads_ours(tmp_path):
    path = make_database(tmp_path / "made", [noise(2, 3, 5)] * 7)
    with open_database(path) as database:
        expected = "".join(f"{key.hex()} {value.hex()}\n" for key, value in database.records())
    python = tool("/usr/bin/python3")
    if subprocess.run([python, "-c", "import plyvel"], capture_output=True).returncode:
        assert "CI" not in os.environ, "python3-plyvel is missing; see .ci/debian.txt"
        pytest.skip("python3-plyvel is not installed")
    code = "import plyvel, sys\nfor k, v in plyvel.DB(sys.argv[1]): print(k.hex(), v.hex())"
    result = subprocess.run([python, "-c", code, path], capture_output=True, text=True, check=True)
    assert result.stdout == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_block_that_fails_leaves_nothing(backend, tmp_path):
    def interrupted() -> None:
        with create_database(str(tmp_path / "made"), backend) as writer:
            writer.put([(b"a", b"1")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_while_writing_nothing_is_under_the_final_name(backend, tmp_path):
    path = tmp_path / "made"
    code = (
        "import time; from siamese_proto.data.databases.database import create_database\n"
        f"with create_database({str(path)!r}, {backend!r}) as writer:\n"
        "    for number in range(10**9):\n"
        "        writer.put([(b'%09d' % number, bytes(1000))])\n"
        "        if number == 50: print('writing', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert not path.exists()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not path.exists()
    with create_database(str(path), backend) as writer:
        writer.put([(b"a", b"1")])
    with open_database(str(path)) as database:
        assert list(database.records()) == [(b"a", b"1")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_disk_is_reported_and_leaves_nothing(backend, tmp_path):
    resource = pytest.importorskip("resource")
    assert resource
    code = (
        "import resource, sys; from siamese_proto.data.databases.database import create_database\n"
        "from siamese_proto.errors import DataError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000))\n"
        "import random\n"
        "try:\n"
        f"    with create_database({str(tmp_path / 'made')!r}, {backend!r}) as writer:\n"
        "        for number in range(500): writer.put([(b'%09d' % number, random.randbytes(1000))])\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("the database cannot be written (")
    assert done.stdout.endswith("); check whether the disk is full\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_database_is_replaced_only_on_request(backend, tmp_path):
    path = make_database(tmp_path / "made", [noise(1, 2, 3)], backend)
    with pytest.raises(DataError, match="already exists"), create_database(path, backend):
        pytest.fail("the block must not begin")
    with create_database(path, backend, overwrite=True) as writer:
        writer.put([(b"new", b"1")])
        with open_database(path) as database:
            assert list(database.keys()) == [b"00000000"]
    with open_database(path) as database:
        assert list(database.records()) == [(b"new", b"1")]
    assert [file.name for file in tmp_path.iterdir()] == ["made"]


def test_a_folder_that_is_not_a_database_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("words")
    with (
        pytest.raises(DataError, match="not a database, so it is not overwritten"),
        create_database(str(tmp_path / "thesis"), "LMDB", overwrite=True),
    ):
        pytest.fail("the block must not begin")
    assert (tmp_path / "thesis/chapter.txt").read_text() == "words"


def test_a_replaced_lmdb_is_read_while_the_old_one_is_open(tmp_path):
    path = make_database(tmp_path / "made", [noise(1, 2, 3)], "LMDB")
    with open_database(path) as old:
        with create_database(path, "LMDB", overwrite=True) as writer:
            writer.put([(b"new", b"1")])
        with open_database(path) as new:
            assert (list(new.keys()), list(old.keys())) == ([b"new"], [b"00000000"])


def test_the_backend_is_determined_from_the_files(tmp_path):
    assert guess_backend(str(GOLDEN / "data/color_lmdb")) == "LMDB"
    assert guess_backend(str(GOLDEN / "data/color_leveldb")) == "LEVELDB"
    assert guess_backend(str(GOLDEN / "data/images")) is None
    assert guess_backend(str(tmp_path / "missing")) is None


def test_records_in_the_log_of_a_leveldb_are_read(tmp_path):
    path = tmp_path / "made"
    database = _library().DB(str(path), create_if_missing=True)
    for number in range(100):
        database.put(b"%08d" % number, bytes([number]))
    database.close()
    assert not list(path.glob("*.ldb"))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    for _ in range(2):
        with open_database(str(path)) as opened:
            assert list(opened.records()) == [(b"%08d" % number, bytes([number])) for number in range(100)]
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_views_of_a_killed_process_are_removed_by_the_next_reader(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead = Path(tempfile.gettempdir()) / f"siamese_proto_leveldb_{process.pid}_dead"
    alive = Path(tempfile.gettempdir()) / f"siamese_proto_leveldb_{os.getpid()}_kept"
    for view in (dead, alive):
        view.mkdir()
    with create_database(str(tmp_path / "db"), "LEVELDB") as writer:
        writer.put([(b"key", b"value")])
    with open_database(str(tmp_path / "db"), "LEVELDB") as database:
        assert list(database.records()) == [(b"key", b"value")]
    assert not dead.exists()
    assert alive.exists()
    alive.rmdir()
