"""Where a text is valid for protobuf's own reader, ours gives the same message."""

import math
from typing import Any, cast

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from siamese_proto.errors import ParseError
from siamese_proto.proto import schema
from siamese_proto.proto.reader import read_message

NUMBERS = {
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
    FieldDescriptor.TYPE_STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
}


def values_of(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return NUMBERS[field.type]


@st.composite
def filled(draw: st.DrawFn, message: Message, depth: int = 0) -> Message:
    fields = cast(list[FieldDescriptor], list(message.DESCRIPTOR.fields))
    for field in draw(st.lists(st.sampled_from(fields), unique=True, max_size=4)):
        target = getattr(message, field.name)
        repeated = hasattr(target, "append") or hasattr(target, "add")
        if field.message_type is not None:
            if depth < 4:
                for _ in range(draw(st.integers(1, 2)) if repeated else 1):
                    child = target.add() if repeated else target
                    child.SetInParent()
                    draw(filled(child, depth + 1))
        elif repeated:
            target.extend(draw(st.lists(values_of(field), max_size=3)))
        else:
            setattr(message, field.name, draw(values_of(field)))
    return message


ROOTS = st.sampled_from(["NetParameter", "SolverParameter", "LayerParameter", "Datum", "SolverState", "NetState"])
STYLES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"as_one_line": True},
        {"pointy_brackets": True},
        {"use_short_repeated_primitives": True},
        {"as_utf8": False, "force_colon": True},
    ]
)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(ROOTS.flatmap(lambda name: filled(getattr(schema, name)())), STYLES)
def test_what_protobuf_prints_is_read_back_equal(message: Message, style: dict[str, Any]) -> None:
    text = text_format.MessageToString(message, **style)
    read, source = read_message(text, type(message))
    assert read == message
    assert source.unknown == ()


ODD_NETS = [
    "",
    "# only a comment",
    "name: 'single' # comment\n#another",
    'name: "a" \'b\'\n"c"',
    r'name: "\a\b\f\n\r\t\v\\\'\"\101\7\x41\x4z\u00e9\U0001F600"',
    r"name: 'it\'s' input: 'say \"x\"'",
    'name: "\u00e9\u4e2d # not a comment { } "',
    "input_dim: [1, 2 , 3]input_dim:4,input_dim:5;input_dim: 0x1F input_dim: 017 input_dim: -3 input_dim: -0x10",
    "input_dim: []",
    "layer { } layer: { } layer < > layer: <\n>",
    "layer [{name: 'a'}, <name: 'b'>]; layer: [ ]",
    "layer{name:'a'bottom:'b'top:'c'loss_weight:1.}",
    "layer { loss_weight: 1. loss_weight: .5 loss_weight: 1.5f loss_weight: 1e3 loss_weight: -1E-3 loss_weight: 2F }",
    "layer { loss_weight: inf loss_weight: -inf loss_weight: Infinity loss_weight: -INF loss_weight: inff }",
    "layer { loss_weight: 1e39 loss_weight: 1e-50 loss_weight: 16777217 loss_weight: 0.1 loss_weight: +3 }",
    "force_backward: true",
    "force_backward: True",
    "force_backward: t",
    "force_backward: 1",
    "force_backward: false debug_info: False",
    "force_backward: f debug_info: 0",
    "state { phase: TRAIN level: 3 stage: 'a' stage: 'b' }",
    "state { phase: 0 }",
    "state { phase: 0x1 }",
    "layers { type: CONVOLUTION blobs_lr: 1 blobs_lr: 2. include: { phase: TEST } }",
    "layers { type: 4 layer { name: 'x' type: 'conv' } }",
    "name: 'crlf'\r\nlayer {\r\n  name: 'a' # comment\r\n}\r\n",
    "\tname:\t'tab'\t\n\n\n\x0c\x0blayer\n{\n}\n",
    "name\n:\n'spread'\nlayer\n:\n{\n}",
    "layer { blobs { shape { dim: 2 dim: 3 } data: [1, 2, 3.5] double_data: 0.1 } }",
    "layer { name: 'a', type: 'b'; top: 'c', }",
]


@pytest.mark.parametrize("text", ODD_NETS)
def test_odd_but_valid_texts_give_what_protobuf_gives(text: str) -> None:
    read, source = read_message(text, schema.NetParameter)
    assert read == text_format.Parse(text, schema.NetParameter())
    assert source.unknown == ()


def test_bytes_fields_hold_any_byte() -> None:
    text = r'data: "\000\xff\377" "é" label: -7'
    read, _ = read_message(text, schema.Datum)
    assert read == text_format.Parse(text, schema.Datum())
    assert read.data == b"\x00\xff\xff\xc3\xa9"


@pytest.mark.parametrize("word", ["nan", "NaN", "nanf", "-nan"])
def test_nan_is_a_number(word: str) -> None:
    read, _ = read_message(f"layer {{ loss_weight: {word} }}", schema.NetParameter)
    assert math.isnan(read.layer[0].loss_weight[0])


REFUSED = [
    "layer { name: 'a' ",
    "layer { } }",
    "name 'a'",
    "name: ",
    "name: 3",
    "name: 'a",
    "name: 'a' name: 'b'",
    "input_dim: 1.0",
    "input_dim: 1e3",
    "input_dim: 2147483648",
    "input_dim: [1 2]",
    "input_dim: [1, 2,]",
    "force_backward: yes",
    "force_backward: 2",
    "layer { loss_weight: 010 }",
    "layer { loss_weight: 0x10 }",
    "layer { loss_weight: 1.2.3 }",
    "layer { convolution_param { num_output: -1 } }",
    "state { phase: TRAIN } state { level: 1 }",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_protobuf_refuses_is_refused(text: str) -> None:
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text, schema.NetParameter())
    try:
        _, source = read_message(text, schema.NetParameter)
    except ParseError as problem:
        lines = [str(problem)]
    else:  # it is text format, with values that their fields cannot hold
        lines = [f"{raw.location}: {raw.fault}" for _, raw in source.unknown if raw.fault]
    assert lines
    assert all(line.startswith("<text>:1: ") for line in lines)


def test_unquoted_words_and_quoted_enums_are_taken_although_protobuf_refuses_them() -> None:
    text = 'lr_policy: step solver_mode: "CPU" snapshot_prefix: examples/siamese/mnist-siamese.v2'
    read, _ = read_message(text, schema.SolverParameter)
    assert read == schema.SolverParameter(
        lr_policy="step",
        solver_mode=schema.SolverParameter.CPU,
        snapshot_prefix="examples/siamese/mnist-siamese.v2",
    )


def test_a_minus_may_stand_apart_as_in_protobuf_for_cpp() -> None:
    read, _ = read_message("input_dim: - 1", schema.NetParameter)
    assert list(read.input_dim) == [-1]


def test_a_backslash_that_begins_no_escape_stands_for_itself() -> None:
    read, _ = read_message(r'source: "D:\pairs\q"', schema.DataParameter)  # protobuf does so too, with a warning
    assert read.source == r"D:\pairs\q"


def test_a_list_of_one_value_is_the_value_of_a_field_that_takes_one_although_protobuf_refuses_it() -> None:
    read, source = read_message("name: ['a'] force_backward: [true]", schema.NetParameter)
    assert (read, source.unknown) == (schema.NetParameter(name="a", force_backward=True), ())
