"""Statements of generated source: which variable holds which blob, and how lines are broken."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from siamese_proto.export.source.names import Names
from siamese_proto.graph.ir import Blob, Shape

WIDTH = 120
_OPENING, _CLOSING = "([{", ")]}"


def statement(code: str, indent: int = 0, remark: str = "") -> list[str]:
    """Return a statement as lines, with a comment after it, or above it if the line would be too long."""
    margin = " " * indent
    line = f"{margin}{code}  # {remark}" if remark else margin + code
    if len(line) <= WIDTH:
        return [line]
    above = [margin + line for line in _wrapped(f"# {remark}", WIDTH - indent)] if remark else []
    targets, equals, value = code.partition(" = ")
    if equals and "," in targets and len(margin + code) > WIDTH >= indent + 4 + len(value):
        return [*above, f"{margin}{targets} = (", f"{margin}    {value}", f"{margin})"]
    links = _chain(value)
    if equals and len(links) > 2 and len(margin + code) > WIDTH:  # method calls go below one another
        inner = (line for link in links for line in broken(link, indent + 4))
        return [*above, f"{margin}{targets} = (", *inner, f"{margin})"]
    return [*above, *broken(code, indent)]


def broken(code: str, indent: int, end_with: str = "") -> Iterator[str]:
    """Yield `code` in lines of at most WIDTH characters, broken at its last brackets; `end_with` ends it."""
    margin = " " * indent
    begin = _last_bracket(code)
    if len(margin + code + end_with) <= WIDTH or begin is None:
        yield margin + code + end_with
        return
    end = _matching(code, begin)
    head, inner, tail = code[: begin + 1], code[begin + 1 : end], code[end:]
    parts = list(_parts(inner))
    ends_with_comma = inner.rstrip().endswith(",")
    yield margin + head
    if len(margin) + 4 + len(inner) <= WIDTH and not ends_with_comma:
        yield f"{margin}    {inner}"
    else:
        # A comma after a single expression in brackets would make it a tuple.
        comma = (
            ","
            if len(parts) > 1 or ends_with_comma or not (code[begin] == "(" and not _follows_a_name(code, begin))
            else ""
        )
        for part in parts:
            yield from broken(part, indent + 4, comma)
    yield margin + tail + end_with


def _chain(code: str) -> list[str]:
    """Split `f(..).g(..).h(..)` into f(..), .g(..) and .h(..)."""
    links, start, position = [], 0, 0
    while position < len(code):
        if code[position] in _OPENING:
            position = _matching(code, position)
            if code[position + 1 : position + 2] == ".":
                links.append(code[start : position + 1])
                start = position + 1
        position += 1
    return [*links, code[start:]]


def _follows_a_name(code: str, begin: int) -> bool:
    """Return whether the bracket at `begin` belongs to a call or an index."""
    before = code[:begin]
    return before[-1:].isalnum() or before[-1:] in tuple("_)]")


def _wrapped(line: str, width: int) -> list[str]:
    """Return a comment in lines of at most `width` characters."""
    lines = []
    while len(line) > width:
        cut = line.rfind(" ", 3, width + 1)
        if cut < 3:
            break
        lines.append(line[:cut])
        line = f"# {line[cut + 1 :]}"
    return [*lines, line]


def _last_bracket(code: str) -> int | None:
    """Return the start of the last outermost pair of brackets that is not empty."""
    start = None
    position = 0
    while position < len(code):
        if code[position] == '"':
            position = _end_of_text(code, position)
        elif code[position] in _OPENING:
            end = _matching(code, position)
            is_index = code[position] == "[" and _follows_a_name(code, position)
            start = position if end > position + 1 and not is_index else start
            position = end
        position += 1
    return start


def _matching(code: str, begin: int) -> int:
    """Return the position of the closing bracket."""
    depth, position = 0, begin
    while position < len(code):
        if code[position] == '"':
            position = _end_of_text(code, position)
        elif code[position] in _OPENING:
            depth += 1
        elif code[position] in _CLOSING:
            depth -= 1
            if depth == 0:
                return position
        position += 1
    raise ValueError(f"a bracket is not closed: {code}")


def _end_of_text(code: str, begin: int) -> int:
    """Return the end of the string literal at `begin`; `names.text` escapes quotes inside."""
    return code.index('"', begin + 1)


def _parts(inner: str) -> Iterator[str]:
    """Yield the comma-separated parts of the text between brackets."""
    start = position = 0
    while position < len(inner):
        if inner[position] == '"':
            position = _end_of_text(inner, position)
        elif inner[position] in _OPENING:
            position = _matching(inner, position)
        elif inner[position] == ",":
            yield inner[start:position].strip()
            start = position + 1
        position += 1
    if inner[start:].strip():
        yield inner[start:].strip()


@dataclass(frozen=True)
class Line:
    """An expression of blobs, and the blobs that its value is assigned to.

    In the expression, `{0}`, `{1}`, .. are the bottoms; `cut` states which of them are detached.
    """

    tops: tuple[Blob | None, ...]  # None: not used
    expression: str
    bottoms: tuple[Blob, ...]
    cut: tuple[bool, ...]
    remark: str


class Scope:
    """The variables of a function that takes and returns blobs."""

    def __init__(
        self, taken: Iterable[str], inputs: Sequence[Blob], batch: int | None, called: Mapping[str, str] | None = None
    ) -> None:
        self.names = Names(taken)
        self.batch = batch
        self.called = called or {}  # names that replace those of the blobs, by blob id
        self.variables = {blob.id: self.names.new(self.called.get(blob.id, blob.name)) for blob in inputs}
        self.inputs = [self.variables[blob.id] for blob in inputs]

    def written(self, lines: Sequence[Line], results: Sequence[Blob], *, returned: bool) -> list[str]:
        """Return the statements; with `returned`, the last one returns the result, or a tuple of results."""
        last_read = {blob.id: index for index, line in enumerate(lines) for blob in line.bottoms}
        last_read.update({blob.id: len(lines) for blob in results})
        body: list[str] = []
        for index, line in enumerate(lines):
            bottoms = [
                self.variables[blob.id] + (".detach()" if cut else "")
                for blob, cut in zip(line.bottoms, line.cut, strict=True)
            ]
            expression = line.expression.format(*bottoms)
            targets = [self._target(top, index, last_read) for top in line.tops]
            if returned and index == len(lines) - 1 and len(results) == 1 and line.tops == (results[0],):
                return [*body, *statement(f"return {expression}", 8, line.remark)]
            body += statement(f"{', '.join(targets)} = {expression}", 8, line.remark)
        if returned:
            body += statement(f"return {', '.join(self.variables[blob.id] for blob in results)}", 8)
        return body

    def shape(self, shape: Shape | None) -> str:
        """Return a shape for a comment, with N for the batch size."""
        sizes = ["N" if index == 0 and size == self.batch else str(size) for index, size in enumerate(shape or ())]
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    def signature(self, inputs: Sequence[Blob], outputs: Sequence[Blob]) -> list[str]:
        """Return inputs and outputs with their shapes, on one line or on a line each. Call it after `written`."""
        arguments, results = (
            [f"{self.variables[blob.id]} {self.shape(blob.shape)}" for blob in each] for each in (inputs, outputs)
        )
        whole = f"{', '.join(arguments)} -> {', '.join(results)}"
        return [whole] if len(whole) <= WIDTH - 4 else [*arguments, *(f"-> {output}" for output in results)]

    def _target(self, top: Blob | None, index: int, last_read: dict[str, int]) -> str:
        if top is None:
            return "_"
        before = Blob(top.name, top.version - 1).id
        if top.version and before in self.variables and last_read.get(before, -1) <= index:
            self.variables[top.id] = self.variables[before]  # changed in place: the old value has no more readers
        else:
            self.variables[top.id] = self.names.new(self.called.get(top.id, top.name))
        return self.variables[top.id]


def function(name: str, inputs: Sequence[str], result: str, doc: str, body: Sequence[str]) -> list[str]:
    """Return a method that takes and returns tensors."""
    arguments = "".join(f", {each}: Tensor" for each in inputs)
    head = list(broken(f"def {name}(self{arguments})", 4, f" -> {result}:"))
    return [*head, f'        """{doc}"""', *body]
