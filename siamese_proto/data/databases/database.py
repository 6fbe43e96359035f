"""Open and create the databases that Data layers read.

with open_database("pairs_leveldb", "LEVELDB") as database:
    for key, value in database.records(): ...
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from siamese_proto.data.databases.store import Backend, Database, Writer
from siamese_proto.errors import DataError, quoted
from siamese_proto.files import abandoned, new_partial, partials_of, put_in_place, sync

__all__ = ["Backend", "Database", "Writer", "create_database", "first_record", "guess_backend", "open_database"]

_REPLACED = "replaced"  # name of the old database in the temporary folder until the new one is in place


def guess_backend(path: str) -> Backend | None:
    """Return the backend of a database, determined from its files, or None if `path` is not a database."""
    place = Path(path)
    if (place / "data.mdb").is_file() or (place.is_file() and place.suffix == ".mdb"):
        return "LMDB"
    return "LEVELDB" if (place / "CURRENT").is_file() else None


def open_database(path: str, backend: Backend | None = None) -> Database:
    """Open a database for reading; `backend` is determined from the files by default.

    Raises:
        DataError: `path` does not exist, is not a database of that backend, or is damaged.
    """
    _check(path, backend)
    try:
        if (backend or guess_backend(path)) == "LMDB":
            from siamese_proto.data.databases.lmdb_store import LmdbDatabase

            return LmdbDatabase(path)
        from siamese_proto.data.databases.leveldb_store import LevelDatabase

        return LevelDatabase(path)
    except PermissionError as error:
        raise DataError(f"database {quoted(path)} cannot be read: {error.strerror}; check its permissions") from error


def first_record(database: Database) -> tuple[bytes, bytes]:
    """Return the key and value of the first record. Raises DataError for an empty database."""
    for record in database.records():
        return record
    raise no_records(database)


def no_records(database: Database) -> DataError:
    """Return the error for a database without records."""
    return DataError(f"database {quoted(database.path)} has no records; make it again")


def _check(path: str, backend: Backend | None) -> None:
    if not Path(path).exists():
        raise DataError(f"database {quoted(path)} does not exist; check the path, or make it with 'siamese-proto data'")
    actual = guess_backend(path)
    if actual is None:
        if Path(path).is_dir() and not any(Path(path).iterdir()):
            raise DataError(f"database {quoted(path)} is an empty folder; make it with 'siamese-proto data'")
        raise DataError(
            f"{quoted(path)} is not a database: neither data.mdb (LMDB) nor CURRENT (LevelDB) exists;"
            " check the path, or make it with 'siamese-proto data'"
        )
    if backend is not None and backend != actual:
        default = " (the default of 'backend')" if backend == "LEVELDB" else ""
        raise DataError(
            f"database {quoted(path)} is of kind {actual}, not {backend}{default};"
            f" write 'backend: {actual}' in data_param"
        )


@contextlib.contextmanager
def create_database(path: str, backend: Backend, *, overwrite: bool = False) -> Iterator[Writer]:
    """Create a database under a temporary name in the same folder; rename it when the block ends without an error.

    Only the finished database ever appears under `path`. Raises DataError if the database exists, unless `overwrite`
    is set. Anything that is not a database is never replaced.
    """
    final = Path(path)
    folder = final.absolute().parent
    _rescue(final)
    _check_free(final, overwrite=overwrite)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(stack.enter_context(new_partial(str(folder), final.name, is_folder=True)))
        except OSError as error:
            text = f"database {quoted(path)} cannot be made: {error.strerror}; choose another folder"
            raise DataError(text) from error
        unfinished = temporary / "database"
        unfinished.mkdir()
        writer = _writer(unfinished, backend)
        try:
            yield writer
            writer.finish()
        finally:
            writer.abandon()
        _put_in_place(unfinished, final, temporary, overwrite=overwrite)


def _rescue(final: Path) -> None:
    """Restore a database that a killed process moved away but did not replace."""
    for folder in abandoned(str(final.absolute().parent), partials_of(re.escape(final.name))):
        if (Path(folder) / _REPLACED).exists() and not final.exists():
            put_in_place(Path(folder) / _REPLACED, final)


def _check_free(final: Path, *, overwrite: bool) -> None:
    if not final.exists() and not final.is_symlink():
        return
    if not overwrite:
        raise DataError(f"{quoted(str(final))} already exists; remove it, choose another name, or write --overwrite")
    if not (final.is_dir() and (guess_backend(str(final)) or not any(final.iterdir()))):
        raise DataError(f"{quoted(str(final))} already exists and is not a database, so it is not overwritten")


def _writer(folder: Path, backend: Backend) -> Writer:
    if backend == "LMDB":
        from siamese_proto.data.databases.lmdb_store import LmdbWriter

        return LmdbWriter(folder)
    from siamese_proto.data.databases.leveldb_store import LevelWriter

    return LevelWriter(folder)


def _put_in_place(unfinished: Path, final: Path, temporary: Path, *, overwrite: bool) -> None:
    for file in (*unfinished.iterdir(), unfinished):
        sync(file)
    _check_free(final, overwrite=overwrite)  # another process may have created it
    if final.exists():
        os.replace(final, temporary / _REPLACED)
    put_in_place(unfinished, final)
