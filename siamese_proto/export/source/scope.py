"""The statements of one `forward`: which variable holds which blob, and what each line computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from siamese_proto.export.source.layout import WIDTH, broken, statement
from siamese_proto.export.source.names import Names
from siamese_proto.graph.ir import Blob, Shape


@dataclass(frozen=True)
class Line:
    """An expression of blobs, and the blobs that its value is, or is unpacked into.

    In the expression `{0}`, `{1}`, .. stand for the blobs read; `cut` says which of them no gradient may pass.
    """

    tops: tuple[Blob | None, ...]  # None: not wanted
    expression: str
    bottoms: tuple[Blob, ...]
    cut: tuple[bool, ...]
    remark: str


class Scope:
    """The body of a function that takes and returns blobs."""

    def __init__(
        self, taken: Iterable[str], inputs: Sequence[Blob], batch: int | None, called: Mapping[str, str] | None = None
    ) -> None:
        self.names = Names(taken)
        self.batch = batch
        self.called = called or {}  # better names than those of the blobs, by their ids
        self.variables = {blob.id: self.names.new(self.called.get(blob.id, blob.name)) for blob in inputs}
        self.inputs = [self.variables[blob.id] for blob in inputs]

    def written(self, lines: Sequence[Line], results: Sequence[Blob], *, returned: bool) -> list[str]:
        """The statements; with `returned` the last one hands the results back, as they are or as a tuple."""
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
        """A shape for a remark, with N for the size of the batch."""
        sizes = ["N" if index == 0 and size == self.batch else str(size) for index, size in enumerate(shape or ())]
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    def signature(self, inputs: Sequence[Blob], outputs: Sequence[Blob]) -> list[str]:
        """Inputs and outputs with their shapes, on one line or on a line each; once the statements are written."""
        taken, made = (
            [f"{self.variables[blob.id]} {self.shape(blob.shape)}" for blob in each] for each in (inputs, outputs)
        )
        whole = f"{', '.join(taken)} -> {', '.join(made)}"
        return [whole] if len(whole) <= WIDTH - 4 else [*taken, *(f"-> {output}" for output in made)]

    def _target(self, top: Blob | None, index: int, last_read: dict[str, int]) -> str:
        if top is None:
            return "_"
        before = Blob(top.name, top.version - 1).id
        if top.version and before in self.variables and last_read.get(before, -1) <= index:
            self.variables[top.id] = self.variables[before]  # changed in place: nobody reads the old value any more
        else:
            self.variables[top.id] = self.names.new(self.called.get(top.id, top.name))
        return self.variables[top.id]


def function(name: str, inputs: Sequence[str], result: str, doc: str, body: Sequence[str]) -> list[str]:
    """A method that takes and returns tensors."""
    arguments = "".join(f", {each}: Tensor" for each in inputs)
    head = list(broken(f"def {name}(self{arguments})", 4, f" -> {result}:"))
    return [*head, f'        """{doc}"""', *body]
