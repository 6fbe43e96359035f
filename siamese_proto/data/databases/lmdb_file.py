"""Read an LMDB file page by page, and validate everything in it.

The library maps the file and follows every number in it, so one damaged byte can crash the process. This module checks
the bounds of each page and raises LmdbFileError for any mismatch. (mdb.c: MDB_meta, MDB_page, MDB_node)

A file is a B+tree of pages. The two meta pages at its start hold the root of the tree; the one with the later
transaction is valid. A page has a header, the offsets of its nodes, and the nodes. A branch node holds the first key
of a child page and its number; a leaf node holds a key and a value. Large values are stored on separate pages.
"""

import bisect
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct("<QHHHH")  # number, padding, flags, end of the places of nodes, start of the nodes
_META = struct.Struct("<QHHHH II16x I44x 4xHH24xQQ QQ")  # header; MDB_meta with two MDB_db, of free pages and records
_NODE = struct.Struct("<HHHH")  # low and high half of a size, flags, length of the key
_NUMBER = struct.Struct("<Q")  # of a page
_BRANCH, _LEAF, _OVERFLOW, _META_FLAG = 1, 2, 4, 8  # flags of pages
_LARGE, _SEVERAL = 1, 4  # flags of nodes: the value is on separate pages; the key has several values
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_NO_PAGE = (1 << 64) - 1
_MOST_LEVELS = 32
_PAGE_SIZES = tuple(1 << power for power in range(8, 17))


class LmdbFileError(Exception):
    """The file cannot be read; the message says why."""


class Tree(NamedTuple):
    """The tree of records that a meta page describes."""

    page_size: int
    flags: int
    levels: int
    entries: int
    root: int
    last_page: int
    transaction: int


class LmdbFile:
    """An open file. Several iterations may run in parallel, in several threads."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed by `close`
        self._close = weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._close()

    def tree(self) -> Tree:
        """Return the current tree of records; a writer may add more. Checks that the file has all its pages."""
        first = self._meta(0)
        second = self._meta(first.page_size)
        tree = max(first, second, key=lambda tree: tree.transaction)
        size, needed = os.fstat(self._file.fileno()).st_size, (tree.last_page + 1) * tree.page_size
        if size < needed:
            raise LmdbFileError(f"{size} bytes of at least {needed}")
        if tree.flags or tree.levels > _MOST_LEVELS:
            raise LmdbFileError(f"its tree has {tree.levels} levels and the flags {tree.flags}")
        return tree

    def records(self, first: bytes | None = None, *, values: bool = True) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of every record in key order, starting at the key `first`.

        Without `values` the values are empty.
        """
        tree = self.tree()
        whole, read, before = first is None, 0, None
        for page in self._leaves(tree, tree.root, tree.levels, first):
            places = _places(page)
            begin = 0 if first is None else bisect.bisect_left(places, first, key=lambda place: _key(page, place))
            first = None
            for place in places[begin:]:
                low, high, flags, length = _NODE.unpack_from(page, place)
                start = place + _NODE.size + length
                key, size = page[start - length : start], low | high << 16
                if flags & _LARGE:
                    value = self._large(tree, _NUMBER.unpack_from(page, start)[0], size) if values else b""
                else:
                    value = page[start : start + size] if values else b""
                    if start + size > tree.page_size:
                        raise LmdbFileError("a record ends outside its page")
                if flags & _SEVERAL or (before is not None and key <= before):
                    raise LmdbFileError("the keys are not in order, each with one value")
                yield key, value
                before = key
                read += 1
        if whole and read != tree.entries:
            raise LmdbFileError(f"{read} of {tree.entries} records exist")

    def _leaves(self, tree: Tree, number: int, levels: int, first: bytes | None) -> Iterator[bytes]:
        """Yield the leaves below a page in order, from the one where the key `first` is or would be."""
        if not levels:
            return
        page = self._page(tree, number, _LEAF if levels == 1 else _BRANCH)
        if levels == 1:
            yield page
            return
        places = _places(page)
        begin = 0  # the first key of a branch is empty: its child may start with any key
        if first is not None:
            begin = max(0, bisect.bisect_right(places, first, 1, key=lambda place: _key(page, place)) - 1)
        for place in places[begin:]:
            low, high, upper, _ = _NODE.unpack_from(page, place)
            yield from self._leaves(tree, low | high << 16 | upper << 32, levels - 1, first)
            first = None

    def _meta(self, place: int) -> Tree:
        data = self._read(place, _META.size)
        if len(data) < _META.size:
            raise LmdbFileError("File is not an LMDB file: it is too short")
        _, _, kind, _, _, magic, version, page_size, flags, *more = _META.unpack(data)
        if not kind & _META_FLAG or magic != _MAGIC:
            raise LmdbFileError("MDB_INVALID: File is not an LMDB file")
        if version != _VERSION or page_size not in _PAGE_SIZES:
            raise LmdbFileError(f"its version is {version} and its pages have {page_size} bytes")
        levels, entries, root, last_page, transaction = more
        return Tree(page_size, flags, 0 if root == _NO_PAGE else levels, entries, root, last_page, transaction)

    def _page(self, tree: Tree, number: int, kind: int) -> bytes:
        page = self._read(number * tree.page_size, tree.page_size) if number <= tree.last_page else b""
        if len(page) < tree.page_size:
            raise LmdbFileError(f"page {number} is not in the file")
        _check_header(page, number, kind)
        return page

    def _large(self, tree: Tree, number: int, size: int) -> bytes:
        """Read a value that is stored on separate pages."""
        place = number * tree.page_size
        if number > tree.last_page or place + _HEADER.size + size > (tree.last_page + 1) * tree.page_size:
            raise LmdbFileError("a record ends outside the file")
        _check_header(self._read(place, _HEADER.size), number, _OVERFLOW)
        return self._read(place + _HEADER.size, size)

    def _read(self, place: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, place)
        with self._lock:
            self._file.seek(place)
            return self._file.read(size) or b""


def _check_header(page: bytes, number: int, kind: int) -> None:
    actual, _, flags, _, _ = _HEADER.unpack_from(page)
    if actual != number or flags & (_BRANCH | _LEAF | _OVERFLOW | _META_FLAG) != kind:
        raise LmdbFileError(f"page {number} has a different number or type")


def _places(page: bytes) -> tuple[int, ...]:
    """Return the offsets of the nodes of a page."""
    end = _HEADER.unpack_from(page)[3]
    if not _HEADER.size <= end <= len(page):
        raise LmdbFileError("a page has more nodes than fit into it")
    places = struct.unpack_from(f"<{(end - _HEADER.size) // 2}H", page, _HEADER.size)
    if places and max(places) > len(page) - _NODE.size:
        raise LmdbFileError("a node is outside its page")
    return places


def _key(page: bytes, place: int) -> bytes:
    start = place + _NODE.size
    return page[start : start + _NODE.unpack_from(page, place)[3]]
