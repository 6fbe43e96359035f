"""Names from an untrusted file are identifiers and strings in the source, never code."""

from __future__ import annotations

import ast
import builtins
import io
import re
import tokenize

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ported_nets import compare, some_values
from ported_zoo import ALL, CONTRASTIVE, HEADS, LABELLED, lenet
from torch import nn

import siamese_proto as sp
from siamese_proto.export.source import port
from siamese_proto.export.source.names import MODULE_ATTRIBUTES, comment, shortened, text
from siamese_proto.graph.ir import Graph

NASTY = (
    '"""\nimport os; os.system("true")\n"""',
    "quote \" and ' and `",
    "end with \\",
    "line\nbreak\r\x0b\x0c\x1c\x85\u2028\u2029end",
    "__import__('os').system('true')",
    "{0}{module}{p0}{{}}",
    "%s $x {x!r}",
    "# noqa",
    "fmt: off",
    "type: ignore",
    "-*- coding: utf-7 -*-",
    "self",
    "torch",
    "forward",
    "forward_once",
    "load_state_dict",
    "__class__",
    "_",
    "",
    "class",
    "None",
    "print",
    "ContrastiveLoss",
    "Tower",
    "tower2",
    "1st",
    "Größe \u0416 \u6f22\u5b57 \u202e\U0001f600",
    "null\x00",
    "x" * 300,
)
TWIN = LABELLED + lenet("", "left", **ALL) + lenet("_p", "right", **ALL) + CONTRASTIVE


def renamed(net: str, name: str) -> Graph:
    """The graph of a net whose own name, and those of layers, blobs and parameters, have this name in them."""
    message = sp.parse_net(net).message
    message.name = name
    for layer in message.layer:
        layer.name = f"{name}{layer.name}"
        for blobs in (layer.bottom, layer.top):
            blobs[:] = [f"{blob}{name}" for blob in blobs]
        for param in layer.param:
            param.name = f"{name}{param.name}" if param.name else ""
    return sp.build_graph(message, phase="TEST")


def skeleton(source: str) -> str:
    """Return the code of a module without its identifiers and strings."""
    tree = ast.parse(source)
    ours = {"torch", "nn", "functional", "Tensor", "self", "ctx", "cast", "Path", "sys", "json", "math", *dir(builtins)}
    for node in ast.walk(tree):
        is_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        for field in ("attr",) if is_own else ("id", "arg", "name"):
            name = getattr(node, field, None)
            if isinstance(name, str) and (is_own or name not in ours):
                assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name), name
                setattr(node, field, "x")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def comments(source: str) -> list[str]:
    return [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]


def check(net: str, name: str) -> None:
    ported = port(renamed(net, name))
    assert ported.source.isascii()
    assert ported.source.isprintable() or set(re.findall(r"[^ -~]", ported.source)) == {"\n"}
    if len(text(name)) <= 60:  # a longer text cannot be broken
        assert max(map(len, ported.source.splitlines())) <= 120
    assert skeleton(ported.source) == skeleton(port(renamed(net, "plain")).source)
    literals = {node.value for node in ast.walk(ast.parse(ported.source)) if isinstance(node, ast.Constant)}
    assert set(ported.outputs) <= literals
    for remark in comments(ported.source):
        assert not re.match(r"#\s*(noqa|fmt|type|ruff|pyright|isort|mypy|pragma|nosec)", remark), remark
        assert "#" not in remark[1:], remark


@pytest.mark.slow
@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("net", [TWIN, HEADS], ids=["twin", "two losses"])
def test_hostile_names_never_become_code(net: str, name: str) -> None:
    check(net, name)


@given(st.text(st.characters(codec="utf-8"), max_size=30))
@example("\\N{DIGIT ONE}")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_name_ever_becomes_code(name: str) -> None:
    check(HEADS, name)


@pytest.mark.parametrize("name", [*NASTY[:3], "forward", "torch", "load_state_dict"])
def test_nets_with_hostile_names_compute_the_right_results(name: str) -> None:
    net = sp.Net(renamed(TWIN, name), fuse=False, seed=1)
    compare(net, some_values(net))


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_a_string_literal_evaluates_to_the_name(name: str) -> None:
    assert ast.literal_eval(text(name)) == name
    assert len(comment([name] * 9)) <= 200
    assert ast.literal_eval(shortened(name)).removesuffix("...") in name


def test_no_attribute_hides_one_that_torch_modules_have() -> None:
    assert {name.lower() for name in dir(nn.Module()) if not name.startswith("_")} <= MODULE_ATTRIBUTES | {"training"}
    assert torch.__version__
