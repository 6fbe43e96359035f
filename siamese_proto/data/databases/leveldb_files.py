"""Check that the files of a LevelDB still hold every record that was written.

LevelDB itself opens a database with a truncated manifest or log, and reads what remains. This module compares the
files. Records are numbered in the order they were written: the manifest gives the number of the last one it knows, and
the log continues from there. A gap, or a table file with later records than both, means that records are lost. A table
file left over from a compaction or a crash has earlier ones. (LevelDB: doc/log_format.md,
version_edit.cc, repair.cc)
"""

import contextlib
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32768  # bytes; no header of a part crosses the end of one
_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4  # kinds of parts


class LostRecordsError(Exception):
    """Records are missing; the message says why."""


@dataclass
class Manifest:
    """Contents of a manifest: the log in use, the log before it, the last record and the tables."""

    log: int = 0
    previous_log: int = 0
    last: int = 0
    tables: set[int] = field(default_factory=set)


def link(file: Path, new: Path) -> None:
    """Create a symbolic link (needs a privilege on Windows), or else a hard link, or else a copy."""
    with contextlib.suppress(OSError):
        return new.symlink_to(file.resolve())
    with contextlib.suppress(OSError):
        return os.link(file, new)
    shutil.copyfile(file, new)
    return None


def check_complete(folder: Path, view: Path, library: Any, scratch: Path, *, being_written: bool) -> None:
    """Raise LostRecordsError if the files of a database no longer hold every record.

    Args:
        folder: The database. Its tables are read.
        view: Folder with copies of its manifest and logs.
        library: The module `plyvel`.
        scratch: A new folder to work in.
        being_written: Whether a process is adding records: the log may end within one, and newer tables may exist.
    """
    manifest = read_manifest(view)
    last = manifest.last
    logs = {int(file.stem): file for file in view.glob("*.log") if file.stem.isdecimal()}
    if manifest.log and manifest.log not in logs:
        raise LostRecordsError(f"its log {manifest.log:06d}.log is missing; if that file was empty, make an empty one")
    for number in sorted(logs):
        if number >= manifest.log or number == manifest.previous_log:
            last = _last_in_log(logs[number], last, being_written=being_written)
    unlisted = [file for file in table_files(folder) if int(file.stem) not in manifest.tables]
    if unlisted and not being_written and _last_in_tables(unlisted, library, scratch) > last:
        named = ", ".join(file.name for file in unlisted[:3])
        raise LostRecordsError(f"its manifest lacks table files with records, among {named}")


def table_files(folder: Path) -> list[Path]:
    """Return the table files in a folder, in the order of their names."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".ldb", ".sst") and file.stem.isdecimal())


def _last_in_log(log: Path, last: int, *, being_written: bool) -> int:
    """Return the number of the last record in a log; `last` is the number of the last record before the log."""
    for batch in _entries(log.read_bytes()):
        if batch is None:
            if being_written:
                return last
            raise LostRecordsError(f"its log {log.name} ends within a record")
        if len(batch) < 12:
            continue  # LevelDB reports it
        first, count = struct.unpack_from("<QI", batch)
        if first > last + 1:
            raise LostRecordsError(f"records {last + 1} to {first - 1} are missing before its log {log.name}")
        last = max(last, first + count - 1)
    return last


def _last_in_tables(tables: list[Path], library: Any, scratch: Path) -> int:
    """Return the number of the last record in table files. LevelDB's repair reads them and skips damaged parts."""
    for table in tables:
        link(table, scratch / table.name)
    library.repair_db(str(scratch), paranoid_checks=True)  # without checks, damaged blocks can crash the process
    return read_manifest(scratch).last


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest that the file CURRENT in a folder names."""
    name = (folder / "CURRENT").read_text(encoding="ascii").strip()
    manifest = Manifest()
    for edit in _entries((folder / name).read_bytes()):
        if edit is not None:  # an incomplete edit was never applied
            try:
                _apply(edit, manifest)
            except (IndexError, ValueError) as error:
                raise LostRecordsError("its manifest cannot be read") from error
    return manifest


def _entries(data: bytes) -> Iterator[bytes | None]:
    """Yield the entries of a log or a manifest; yield None last if the file ends within an entry."""
    parts: list[bytes] = []
    position, whole = 0, True
    while position < len(data):
        left_in_block = _BLOCK - position % _BLOCK
        if left_in_block < _HEADER.size:
            position += left_in_block
            continue
        if position + _HEADER.size > len(data):
            whole = False
            break
        _, length, kind = _HEADER.unpack_from(data, position)
        if kind == 0:
            if any(data[position : position + left_in_block]):
                whole = False
                break
            position += left_in_block  # preallocated, unused space
            continue
        begin = position + _HEADER.size
        position = begin + length
        if position > len(data):
            whole = False
            break
        parts = [data[begin:position]] if kind in (_WHOLE, _FIRST) else [*parts, data[begin:position]]
        if kind in (_WHOLE, _LAST):
            yield b"".join(parts)
            parts = []
    if parts or not whole:
        yield None


def _apply(edit: bytes, manifest: Manifest) -> None:
    """Apply one entry of a manifest: fields with a tag and varints or length-prefixed bytes."""
    position = 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = edit[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def skip_bytes() -> None:
        nonlocal position
        length = number()
        position += length

    while position < len(edit):
        match number():
            case 1:  # the name of the comparator
                skip_bytes()
            case 2:
                manifest.log = number()
            case 3:  # the next number for a file
                number()
            case 4:
                manifest.last = number()
            case 5:  # where the next compaction of a level begins
                number()
                skip_bytes()
            case 6:  # level, table
                number()
                manifest.tables.discard(number())
            case 7:  # level, table, size, first and last key
                number()
                manifest.tables.add(number())
                number()
                skip_bytes()
                skip_bytes()
            case 9:
                manifest.previous_log = number()
            case tag:
                raise ValueError(f"unknown tag {tag}")
