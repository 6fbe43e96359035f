"""Parse protobuf's text format without a schema: from text to a tree of fields with their locations."""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from siamese_proto.errors import Location, ParseError, quoted

# Real files nest five levels deep. The limit protects the stack from hostile files.
MAX_DEPTH = 100

_STRING = r'"(?:[^"\\\n]|\\.)*"' + r"|'(?:[^'\\\n]|\\.)*'"
_TOKEN = re.compile(
    r"(?P<space>[^\S\n]+|\#[^\n]*)"
    r"|(?P<newline>\n)"
    r"|(?P<conflict>^(?:<{7}|={7}|>{7}|\|{7})(?=\s|\Z))"
    r"|(?P<word>[A-Za-z_][0-9A-Za-z_+-]*(?:[./][0-9A-Za-z_+./-]*)?)"  # MyCaffe writes paths without quotes
    r"|(?P<mark>[{}<>\[\]:,;])"
    rf"|(?P<string>{_STRING})"
    r"|(?P<number>(?:-[ \t]*|[0-9+.])[0-9A-Za-z_.+-]*)"
    r"|(?P<bad>.)",
    re.MULTILINE,
)
_NAME = re.compile(r"[A-Za-z_]\w*|\d+", re.ASCII)  # protobuf prints unknown fields by number
_ESCAPE = re.compile(
    rb"\\(?:([0-3][0-7]{2}|[0-7]{1,2}(?![0-7]))|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([abfnrtv\\'\"]))",
    re.ASCII,
)
_SIMPLE = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_PAGE = re.compile(r"\s*(?:<!--.*?-->\s*)*(<!doctype\s+html|<html\b|<head\b|<\?xml\b)", re.IGNORECASE | re.DOTALL)
_CLOSER = {"{": "}", "<": ">"}


class Token(NamedTuple):
    """A piece of text, or a value made of one: a word, a number, or a string of several parts.

    Attributes:
        kind: word, number, string, mark, or one that is always an error: conflict, bad, end.
        text: The token as written, strings with their quotes; of a string value its first part.
        data: The bytes of a string value, unescaped and joined.
    """

    kind: str
    text: str
    line: int
    column: int
    data: bytes = b""

    def __str__(self) -> str:
        return self.text if self.kind == "string" else quoted(self.text)


class Block(NamedTuple):
    """A value in braces: the fields of a message."""

    fields: list[Node]
    line: int
    column: int


class Node(NamedTuple):
    """A field as written. It has one value, or any number of them if it was written as a list (`is_list`)."""

    name: str
    values: list[Token | Block]
    is_list: bool
    line: int
    column: int


def parse_tree(text: str, file: str) -> list[Node]:
    """Parse a text into its fields.

    Raises:
        ParseError: The text is not in protobuf's text format.
    """
    if page := _PAGE.match(text):
        line = text.count("\n", 0, page.start(1)) + 1
        what = "an HTML page" if "html" in page[1].lower() else "an XML file"
        text = f"expected a prototxt, got {what}; download the raw file instead of the web page"
        raise ParseError(text, location=Location(file, line))
    return _Parser(_tokens(text), file).fields()


def count_comments(text: str) -> int:
    """Return the number of comments in a text."""
    return sum(match.lastgroup == "space" and match.group()[0] == "#" for match in _TOKEN.finditer(text))


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    line, line_start = 1, 0
    if "\n" not in text:
        text = text.replace("\r", "\n")  # line ends of old Macintosh files
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind == "newline":
            line += 1
            line_start = match.end()
        elif kind != "space":
            tokens.append(Token(kind, match.group(), line, match.start() - line_start + 1))
    tokens.append(Token("end", "", line, len(text) - line_start + 1))
    return tokens


class _Parser:
    """A recursive-descent parser. Each method starts at the first token of what it parses and stops after the last."""

    def __init__(self, tokens: list[Token], file: str) -> None:
        self._tokens = tokens
        self._file = file
        self._position = 0
        self._depth = 0

    def fields(self) -> list[Node]:
        """Parse all fields up to the end of the text."""
        nodes = []
        while self._next().kind != "end":
            if self._at("}", ">"):
                self._fail(f"{self._next()} closes nothing; remove it, or add the missing opening brace above")
            nodes.append(self._field())
        return nodes

    def _next(self) -> Token:
        return self._tokens[self._position]

    def _take(self) -> Token:
        self._position += 1
        return self._tokens[self._position - 1]

    def _at(self, *marks: str) -> bool:
        token = self._tokens[self._position]
        return token.kind == "mark" and token.text in marks

    def _accept(self, *marks: str) -> bool:
        """Take the next token if it is one of these marks."""
        is_there = self._at(*marks)
        self._position += is_there
        return is_there

    def _fail(self, message: str, token: Token | None = None) -> NoReturn:
        token = token or self._next()
        raise ParseError(message, location=Location(self._file, token.line, token.column))

    def _unexpected(self, expected: str) -> NoReturn:
        token = self._next()
        if token.kind == "conflict":
            self._fail(f"unresolved merge conflict ({token.text}); keep one side and delete the conflict markers")
        if token.kind == "end":
            self._fail(f"unexpected end of the text, expected {expected}")
        if token.kind != "bad":
            self._fail(f"expected {expected}, got {token}")
        if token.text in "\"'":
            self._fail(f"the string that starts with {token.text} does not end on its line; close the quote")
        hint = "; a comment starts with #" if token.text == "/" else ""
        if token.text in "$%":
            hint = "; is it a placeholder that was not filled in?"
        self._fail(f"unexpected character {token}, expected {expected}{hint}")

    def _field(self) -> Node:
        start = self._next()
        name = self._name()
        has_colon = self._accept(":")
        values: list[Token | Block]
        is_list = self._at("[")
        if is_list:
            values = self._list(name)
        elif self._at("{", "<"):
            values = [self._block(name)]
        elif has_colon:
            values = [self._scalar(f"a value for {quoted(name)}")]
        else:
            self._unexpected(f"':' or '{{' after {quoted(name)}")
        self._accept(",", ";")
        return Node(name, values, is_list, start.line, start.column)

    def _name(self) -> str:
        token = self._next()
        if self._at("["):  # the name of an extension
            parts = []
            while not self._at("]"):
                parts.append(self._take().text)
                if self._next().kind in ("end", "bad") and self._next().text not in ("/",):
                    self._unexpected("']'")
            self._take()
            return "".join(parts) + "]"
        if not _NAME.fullmatch(token.text):
            self._unexpected("a field name")
        return self._take().text

    def _list(self, name: str) -> list[Token | Block]:
        opening = self._take()
        values: list[Token | Block] = []
        while not self._accept("]"):
            if self._at("{", "<"):
                values.append(self._block(name))
            else:
                values.append(self._scalar(f"a value in the list of {quoted(name)} (line {opening.line})"))
            if self._accept(","):
                if self._at("]"):
                    self._unexpected("a value after ','")
            elif not self._at("]"):
                self._unexpected(f"',' or ']' in the list of {quoted(name)}")
        return values

    def _block(self, name: str) -> Block:
        opening = self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"messages are nested more than {MAX_DEPTH} levels deep", opening)
        nodes: list[Node] = []
        while not self._at("}", ">"):
            if self._next().kind == "end":
                inside = next((node for node in nodes if node.name == name), None)
                hint = f"; another {quoted(name)} starts inside it at line {inside.line}" if inside else ""
                self._fail(f"the '{opening.text}' of {quoted(name)} is never closed{hint}", opening)
            nodes.append(self._field())
        closer = _CLOSER[opening.text]
        if not self._accept(closer):
            self._fail(f"expected '{closer}' to close the '{opening.text}' of line {opening.line}, got {self._next()}")
        self._depth -= 1
        return Block(nodes, opening.line, opening.column)

    def _scalar(self, expected: str) -> Token:
        token = self._next()
        if token.kind == "string":
            data = b""
            while self._next().kind == "string":
                data += self._unescape(self._take())
            return token._replace(data=data)
        if token.kind not in ("word", "number"):
            self._unexpected(expected)
        return self._take()._replace(text="".join(token.text.split()))  # `- 1` is a number

    def _unescape(self, token: Token) -> bytes:
        inner = token.text[1:-1].encode("utf-8", "surrogatepass")
        if b"\\" not in inner:
            return inner
        try:
            return _ESCAPE.sub(_unescaped, inner)
        except ValueError:
            self._fail("invalid escape in a string: no character has this number", token)


def _unescaped(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, short, long, simple = match.groups()
    if octal is not None:
        return bytes([int(octal, 8)])  # ValueError: more than a byte
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    if simple is not None:
        return _SIMPLE.get(simple, simple)
    return chr(int(short or long, 16)).encode()  # ValueError: not a character
