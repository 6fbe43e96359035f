"""Our reader of LMDB files reads what the library reads, and reports damaged files in one line."""

from __future__ import annotations

import random
from pathlib import Path

import lmdb
import pytest
from feeding import GOLDEN

from siamese_proto.data.databases.database import open_database
from siamese_proto.errors import DataError

SIZES = [(0, 1), (1, 40), (2000, 40), (60, 3000), (7, 90000), (900, 700)]  # records, the largest value below


def write(path: Path, count: int, size: int) -> None:
    """Put records in random order, replace some, and delete a third of them."""
    draw = random.Random(count)
    environment = lmdb.open(str(path), map_size=1 << 26)
    keys = [draw.randbytes(draw.randrange(1, 30)) for _ in range(count)]
    for part in (keys, keys[::2]):
        with environment.begin(write=True) as transaction:
            for key in part:
                transaction.put(key, draw.randbytes(draw.randrange(size)))
    with environment.begin(write=True) as transaction:
        for key in keys[::3]:
            transaction.delete(key)
    (path / "compact").mkdir()
    environment.copy(str(path / "compact"), compact=True)
    environment.close()


@pytest.mark.parametrize(("count", "size"), SIZES)
@pytest.mark.parametrize("part", ["", "compact"])
def test_an_lmdb_is_read_as_the_library_reads_it(count, size, part, tmp_path):
    write(tmp_path, count, size)
    path = str(tmp_path / part)
    with lmdb.open(path, readonly=True, lock=False) as environment, environment.begin() as transaction:
        expected = list(transaction.cursor())
    with open_database(path, "LMDB") as database:
        assert list(database.records()) == expected
        assert list(database.keys()) == [key for key, _ in expected]
        assert database.count() == len(expected)
        for key in (
            b"",
            b"\x80",
            b"\xff" * 40,
            *(key for key, _ in expected[::97]),
            *(key for key, _ in expected[-1:]),
        ):
            for start in (key, key + b"\0"):
                assert list(database.records(start)) == [record for record in expected if record[0] >= start]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "size"), SIZES[2:])
def test_a_damaged_or_truncated_lmdb_is_one_line_and_never_ends_the_process(count, size, tmp_path):
    write(tmp_path, count, size)
    whole, draw = (tmp_path / "compact/data.mdb").read_bytes(), random.Random(1)
    (tmp_path / "data.mdb").unlink()
    damaged = tmp_path / "damaged.mdb"
    messages = []
    for case in range(120):
        data = bytearray(whole[: draw.randrange(len(whole)) if case % 10 == 0 else None])
        for _ in range(draw.choice([1, 4, 30])):
            data[draw.randrange(min(len(data), draw.choice([200, 9000, len(data)])))] = draw.choice([0, 1, 255, 77])
        damaged.write_bytes(data)
        try:
            with open_database(str(damaged), "LMDB") as database:
                list(database.records())
                list(database.records(b"\x80"))
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(text.startswith(f"LMDB database '{damaged}' is damaged or incomplete (") for text in messages)


def test_an_lmdb_that_lost_records_is_refused(tmp_path):
    """Return a leaf with fewer records than before."""
    data = bytearray((GOLDEN / "flagship/pairs_lmdb/data.mdb").read_bytes())
    page = next(page for page in range(2 * 4096, len(data), 4096) if data[page + 10] & 2 and data[page + 12] > 18)
    data[page + 12] -= 2
    (tmp_path / "data.mdb").write_bytes(data)
    with (
        open_database(str(tmp_path), "LMDB") as database,
        pytest.raises(DataError, match=r"\(639 of 640 records exist\)"),
    ):
        list(database.records())


def test_a_writer_and_a_reader_of_one_lmdb_do_not_disturb_each_other(tmp_path):
    with lmdb.open(str(tmp_path), map_size=1 << 26) as environment:
        for number in range(5):
            with environment.begin(write=True) as transaction:
                transaction.put(b"%d" % number, bytes(5000))
            with open_database(str(tmp_path), "LMDB") as first, open_database(str(tmp_path), "LMDB") as second:
                assert first.count() == second.count() == number + 1 == len(list(first.records()))
