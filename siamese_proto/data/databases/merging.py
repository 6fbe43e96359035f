"""Merge databases into one."""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from siamese_proto.data.databases.database import Backend, create_database, open_database
from siamese_proto.data.databases.datum import Decoding, Size, key_text, parse_datum, size_of
from siamese_proto.data.databases.store import Database, Record
from siamese_proto.errors import DataError, quoted

_AT_ONCE = 1000  # records written together
_NUMBERED = re.compile(rb"\d+(_.*)?", re.DOTALL)


def merge_databases(
    sources: Sequence[str],
    path: str,
    backend: Backend,
    *,
    seed: int | None = None,
    any_size: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Merge the records of databases, of either backend, into a new one; return their number.

    Records are in the order of the databases, or shuffled with `seed`. Keys are renumbered: the name in
    `00000003_cat.png` stays. Raises DataError for a record that cannot be read or, unless `any_size` is set, whose
    size differs from the first. `progress` is called with the number of records written.
    """
    with contextlib.ExitStack() as stack:
        databases = [stack.enter_context(open_database(source)) for source in sources]
        count = sum(database.count() for database in databases)
        if not count:
            raise DataError("the databases have no records, so there is nothing to merge")
        in_order = ((database, record) for database in databases for record in database.records())
        records = in_order if seed is None else _shuffled(databases, seed)
        checked = _checked(records, any_size=any_size)
        with create_database(path, backend, overwrite=overwrite) as writer:
            for begin in range(0, count, _AT_ONCE):
                batch = list(itertools.islice(checked, _AT_ONCE))
                writer.put([(_renumbered(begin + index, key), value) for index, (key, value) in enumerate(batch)])
                progress(begin + len(batch))
    return count


def _shuffled(databases: Sequence[Database], seed: int) -> Iterator[tuple[Database, Record]]:
    import numpy

    places = [(database, key) for database in databases for key in database.keys()]  # noqa: SIM118  # not a dict
    for index in numpy.random.default_rng(seed).permutation(len(places)).tolist():
        database, key = places[index]
        yield database, next(database.records(key))


def _checked(records: Iterator[tuple[Database, Record]], *, any_size: bool) -> Iterator[Record]:
    first: tuple[Size, str] | None = None
    for database, (key, value) in records:
        try:
            size = size_of(key, parse_datum(key, value), Decoding())
        except DataError as error:
            raise DataError(f"database {quoted(database.path)}: {error}") from error
        what = f"record {key_text(key)} of database {quoted(database.path)}"
        first = first or (size, what)
        if size != first[0] and not any_size:
            sizes = [" x ".join(map(str, each)) for each in (size, first[0])]
            raise DataError(
                f"{what} has size {sizes[0]}, but {first[1]} has {sizes[1]} (channels x height x width);"
                " to merge different sizes, add --any-size"
            )
        yield key, value


def _renumbered(number: int, key: bytes) -> bytes:
    named = _NUMBERED.fullmatch(key)
    return b"%08d" % number + ((named[1] or b"") if named else b"_" + key)
