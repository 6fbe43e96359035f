"""Long statements are broken as ruff breaks them, without changing their meaning."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from siamese_proto.export.source.statements import WIDTH, statement

LONG = [f"{letter * 24}" for letter in "abcdefg"]
CALL = f"y = torch.cat(({', '.join(LONG[:4])}), dim=1)"
MANY = f"y = torch.cat(({', '.join(LONG)}), dim=1)"
CHAIN = f"y = functional.conv1d({', '.join(LONG[:4])}, groups=2).squeeze(-1).unflatten(0, x.shape[:3])"
STATEMENTS = [
    CHAIN,
    "y = self.conv(x)",
    CALL,
    MANY,
    f"return {{{', '.join(f'{chr(34)}{name}{chr(34)}: {name}' for name in LONG)}}}",
    f"return torch.stack([{', '.join(f'0.5 * outputs[{chr(34)}{name}{chr(34)}]' for name in LONG)}]).sum()",
    f"y = ({' + '.join(LONG[:4])}).exp()",
    f"{', '.join(LONG[:4])} = x.tensor_split({tuple(range(1, 9))}, dim=1)",
]


@pytest.mark.parametrize("code", STATEMENTS)
def test_a_broken_statement_is_the_same_statement(code: str) -> None:
    lines = statement(code, 0, "a remark")
    assert ast.dump(ast.parse("\n".join(lines).replace("return", "y ="))) == ast.dump(
        ast.parse(code.replace("return", "y ="))
    )
    assert all(len(line) <= WIDTH for line in lines)


@pytest.mark.parametrize("code", STATEMENTS)
def test_a_statement_is_broken_as_ruff_breaks_it(code: str) -> None:
    text = "\n".join(["def function():", *statement(code, 4)]) + "\n"
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", str(WIDTH), "-"]
    assert subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout == text


def test_a_comment_without_room_is_put_above() -> None:
    assert statement("y = x", 4, "z" * 110) == [f"    # {'z' * 110}", "    y = x"]
