"""The source line of a problem, with a caret under the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from siamese_proto.errors import Location
from siamese_proto.proto.excerpt import excerpt


def shown(folder: Path, text: str | bytes, line: int, column: int) -> list[str]:
    file = folder / "net.prototxt"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return excerpt(Location(str(file), line, column)).splitlines()


@pytest.mark.parametrize(
    ("text", "line", "column", "expected"),
    [
        ("one\ntwo: 2\n", 2, 6, ["    two: 2", "         ^"]),
        ("  two: 2", 1, 8, ["    two: 2", "         ^"]),  # without the indent
        ("\t\ttwo:\t2", 1, 8, ["    two: 2", "         ^"]),
        ("a\r\n two: 2\r\n", 2, 7, ["    two: 2", "         ^"]),
        ("a\rtwo: 2", 2, 6, ["    two: 2", "         ^"]),  # of an old Macintosh
        ("\ufefftwo: 2", 1, 6, ["    two: 2", "         ^"]),
        ('"\u65e5\u672c" 2', 1, 6, ['    "\u65e5\u672c" 2', "           ^"]),  # two columns a letter
        ("\x1b[31m: 2", 1, 8, ["    ?[31m: 2", "           ^"]),  # nothing that controls a terminal
        ("a\u200bb: 2", 1, 6, ["    a?b: 2", "         ^"]),
        ("two: 2", 1, 99, ["    two: 2", "          ^"]),  # after the end
        ("two: 2\n\n", 2, 1, []),  # nothing to point at
        ("two: 2", 7, 1, []),
        ("# a comment\ntwo: 2", 1, 1, []),  # what is about the whole file points at its first line
    ],
)
def test_the_caret_stands_under_the_column(
    text: str, line: int, column: int, expected: list[str], tmp_path: Path
) -> None:
    assert shown(tmp_path, text, line, column) == expected


@pytest.mark.parametrize("place", [0, 1, 40, 500, 960, 999])
def test_long_lines_are_cut_around_the_caret(place: int, tmp_path: Path) -> None:
    text = "".join(f"{index:03d} " for index in range(250))
    source, caret = shown(tmp_path, text, 1, place + 1)
    assert len(source) <= 4 + 96 + 6
    assert source[caret.index("^") :][:1].strip() == text[place].strip()
    assert source.startswith("    ...") == (place > 48)
    assert source.endswith("...") == (place < 940)


def test_what_is_no_longer_a_file_is_not_shown(tmp_path: Path) -> None:
    assert excerpt(Location(str(tmp_path / "gone.prototxt"), 1)) == ""
    assert excerpt(Location(str(tmp_path), 1)) == ""
    assert excerpt(Location("<text>", 1)) == ""
    assert excerpt(None) == ""


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    assert shown(tmp_path, "first", 1, 1)[0] == "    first"
    assert shown(tmp_path, "the second", 1, 1)[0] == "    the second"


def test_a_file_of_another_encoding_is_shown(tmp_path: Path) -> None:
    assert shown(tmp_path, "a: \u00fc 2".encode("utf-16"), 1, 6) == ["    a: \u00fc 2", "         ^"]
