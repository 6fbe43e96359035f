"""Intact LevelDBs are read completely, with any leftover files. Damaged ones raise an error: no record is lost."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from siamese_proto.data.databases.database import open_database
from siamese_proto.data.databases.leveldb_store import _library
from siamese_proto.errors import DataError

Records = dict[bytes, bytes]


def write_sessions(path: Path, *, sessions: int, seed: int = 1) -> Records:
    """Put, overwrite and delete records in several sessions with many small tables; return the final records."""
    draw, records = random.Random(seed), {}
    for session in range(sessions):
        database = _library().DB(str(path), create_if_missing=True, write_buffer_size=1 << 16)
        for _ in range(1500):
            key = b"%08d" % draw.randrange(2000)
            if draw.random() < 0.2:
                database.delete(key)
                records.pop(key, None)
            else:
                records[key] = draw.randbytes(draw.randrange(300))
                database.put(key, records[key])
        if session % 2:
            database.compact_range()
        database.close()
    return records


def read(path: Path) -> Records:
    with open_database(str(path)) as database:
        return dict(database.records())


def contents(path: Path) -> Records:
    return {file.name.encode(): file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("sessions", [1, 2, 3, 4])
def test_a_leveldb_of_several_sessions_is_read_completely_and_not_changed(sessions, tmp_path):
    records = write_sessions(tmp_path / "db", sessions=sessions)
    before = contents(tmp_path / "db")
    assert read(tmp_path / "db") == records
    assert contents(tmp_path / "db") == before


def test_a_leveldb_with_a_truncated_manifest_never_loses_records_silently(tmp_path):
    write_sessions(tmp_path / "db", sessions=2)
    (manifest,) = (tmp_path / "db").glob("MANIFEST-*")
    whole = manifest.read_bytes()
    for length in random.Random(2).sample(range(len(whole)), 25):
        manifest.write_bytes(whole[:length])
        with pytest.raises(DataError, match="is damaged or incomplete"):
            read(tmp_path / "db")


def test_a_leveldb_whose_manifest_lacks_a_table_with_records_is_refused(tmp_path):
    database = _library().DB(str(tmp_path / "db"), create_if_missing=True)
    database.put(b"a", b"1")
    database.close()
    (manifest,) = (tmp_path / "db").glob("MANIFEST-*")
    before, log = manifest.read_bytes(), next((tmp_path / "db").glob("*.log")).name
    database = _library().DB(str(tmp_path / "db"))
    database.put(b"b", b"2")
    database.compact_range()
    database.close()
    for file in (tmp_path / "db").iterdir():
        if file.suffix != ".ldb":
            file.unlink()
    (tmp_path / "db" / manifest.name).write_bytes(before)
    (tmp_path / "db/CURRENT").write_text(f"{manifest.name}\n")
    with pytest.raises(DataError, match=rf"its log {log} is missing; if that file was empty, make an empty one"):
        read(tmp_path / "db")
    (tmp_path / "db" / log).write_bytes(b"")
    with pytest.raises(DataError, match=r"its manifest lacks table files with records, among 00000\d.ldb"):
        read(tmp_path / "db")


def test_a_table_left_over_from_a_compaction_or_a_crash_is_not_read_and_not_changed(tmp_path):
    path = tmp_path / "db"
    records = write_sessions(path, sessions=1)
    tables = sorted(path.glob("*.ldb"))
    copies = {table.name: table.read_bytes() for table in tables}
    database = _library().DB(str(path))
    database.compact_range()
    database.put(b"in the log", b"1")  # a reader writes the log to a new table
    records[b"in the log"] = b"1"
    database.close()
    for name, data in copies.items():  # as if LevelDB had been killed before it removed them
        (path / name).write_bytes(data)
    newest = max(int(table.stem) for table in path.glob("*.ldb"))
    for number in range(newest + 1, newest + 9):  # incomplete tables with the numbers of the next new tables
        (path / f"{number:06d}.ldb").write_bytes(b"unfinished")
    before = contents(path)
    assert read(path) == records
    assert contents(path) == before


@pytest.mark.slow
def test_a_leveldb_whose_writer_was_killed_is_read_as_leveldb_itself_reads_it(tmp_path):
    code = (
        "import random, sys; from siamese_proto.data.databases.leveldb_store import _library\n"
        "database = _library().DB(sys.argv[1], create_if_missing=True, write_buffer_size=30000)\n"
        "for number in range(10**9):\n"
        "    database.put(b'%08d' % random.randrange(5000), random.randbytes(300))\n"
        "    if number == 3000: print('writing', flush=True)"
    )
    path = tmp_path / "db"
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
            process.send_signal(signal.SIGKILL)
        actual = read(path)
        shutil.copytree(path, tmp_path / "copy")
        database = _library().DB(str(tmp_path / "copy"))
        assert actual == dict(database)
        database.close()
        shutil.rmtree(tmp_path / "copy")


def make_log(path: Path) -> Path:
    database = _library().DB(str(path), create_if_missing=True)
    for number in range(200):
        database.put(b"%08d" % number, random.Random(number).randbytes(500))
    database.close()
    (log,) = path.glob("*.log")
    return log


def test_a_leveldb_with_a_log_truncated_within_a_record_is_refused(tmp_path):
    log = make_log(tmp_path / "db")
    whole = log.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 5):
        log.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"\(its log {log.name} ends within a record\); copy it or make it again"):
            read(tmp_path / "db")


def test_a_leveldb_with_a_record_marked_as_unused_space_is_refused(tmp_path):
    log = make_log(tmp_path / "db")
    whole = log.read_bytes()
    block = len(whole) // 32768 * 32768  # the last one: no later record shows that some are missing
    length = int.from_bytes(whole[block + 4 : block + 6], "little")  # of its first part, after a checksum
    kind = block + 7 + length + 6  # of the next part, which is a whole record; its length stands before it
    assert whole[kind] == 1
    log.write_bytes(whole[: kind - 2] + bytes(3) + whole[kind + 1 :])
    with pytest.raises(DataError, match="is damaged or incomplete"):
        read(tmp_path / "db")


def test_a_leveldb_with_a_damaged_byte_in_its_log_is_refused(tmp_path):
    log = make_log(tmp_path / "db")
    whole = log.read_bytes()
    for place in random.Random(3).sample(range(len(whole)), 40):
        log.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        with pytest.raises(DataError, match="is damaged or incomplete"):
            read(tmp_path / "db")


@pytest.mark.parametrize(
    ("current", "problem"),
    [
        (b"", "CURRENT names no existing manifest"),
        (b"MANIFEST-", "CURRENT names no existing manifest"),
        (b"MANIFEST-000002", "CURRENT file does not end with newline"),
        (b"MANIFEST-0000\x00\n", "CURRENT names no existing manifest"),
    ],
)
def test_a_leveldb_with_a_damaged_current_file_is_refused(tmp_path, current, problem):
    make_log(tmp_path / "db")
    (tmp_path / "db/CURRENT").write_bytes(current)
    with pytest.raises(DataError, match=problem):
        read(tmp_path / "db")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folders", "problem"),
    [
        (
            "None; tempfile._candidate_tempdir_list = lambda: ['/proc/none']",
            "No usable temporary directory found in ['/proc/none']",
        ),
        ("'/proc/none'", "No such file or directory"),
        ("{path!r}; import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))", "File too large"),
    ],
)
def test_a_leveldb_without_a_temporary_folder_is_one_clear_line(tmp_path, folders, problem):
    make_log(tmp_path / "db")
    code = "import sys, tempfile; from siamese_proto.data.databases.database import open_database\n"
    code += f"tempfile.tempdir = {folders.format(path=str(tmp_path))}\n"
    code += "try: open_database(sys.argv[1])\nexcept Exception as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "db")], capture_output=True, text=True)
    assert done.stdout == (
        f"LevelDB database '{tmp_path / 'db'}' needs a temporary folder to be read, and none can be used ({problem});"
        " set TMPDIR to a folder that can be written to\n"
    )
