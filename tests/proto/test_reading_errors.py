"""What is wrong with a text or file, and the one line that says so. A new check is a new row."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from siamese_proto.compiler import build_graph
from siamese_proto.errors import NetError, ParseError, SolverError
from siamese_proto.net.net import Net
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet, ParsedSolver
from siamese_proto.proto.reader import parse_net, parse_solver, unknown_problems
from siamese_proto.proto.upgrade.net import upgrade_net
from siamese_proto.proto.writer import write_net
from siamese_proto.solver.settings import read_settings

NETS = [
    ('name: "n"\nlayer {\n  name: "a"\n  type: "ReLU"\n', "<text>:2: the '{' of 'layer' is never closed"),
    (
        'layer {\n  name: "a"\n  convolution_param {\n    num_output: 3\n}\nlayer {\n  name: "b"\n}\n',
        "<text>:1: the '{' of 'layer' is never closed; another 'layer' starts inside it at line 6",
    ),
    ('layer { name: "a" }\n}\n', "<text>:2: '}' closes nothing; remove it, or add the missing opening brace above"),
    ('layer { name: "a" >\n', "<text>:1: expected '}' to close the '{' of line 1, got '>'"),
    ('layer < name: "a" }\n', "<text>:1: expected '>' to close the '<' of line 1, got '}'"),
    ('layer {\n  name "a"\n}\n', "<text>:2: expected ':' or '{' after 'name', got \"a\""),
    ("layer {\n  name:\n}\n", "<text>:3: expected a value for 'name', got '}'"),
    ("layer {\n  name: }\n", "<text>:2: expected a value for 'name', got '}'"),
    ('name: "n"\nlayer\n', "<text>:3: unexpected end of the text, expected ':' or '{' after 'layer'"),
    ('name: "n"\nlayer:\n', "<text>:3: unexpected end of the text, expected a value for 'layer'"),
    ('layer { : "a" }\n', "<text>:1: expected a field name, got ':'"),
    ('{ name: "a" }\n', "<text>:1: expected a field name, got '{'"),
    ('name = "n"\n', "<text>:1: unexpected character '=', expected ':' or '{' after 'name'"),
    (
        'name: "n"\n// nothing\n',
        "<text>:2: unexpected character '/', expected a field name; a comment starts with #",
    ),
    ('name: "n" @\n', "<text>:1: unexpected character '@', expected a field name"),
    ('name: "n\nlayer { }\n', '<text>:1: the string that starts with " does not end on its line; close the quote'),
    ("name: 'n\n", "<text>:1: the string that starts with ' does not end on its line; close the quote"),
    ('name: "a\\xff"\n', "<text>:1: 'name': expected a string in UTF-8, got \"a\\xff\""),
    ('name: "a" "\\ud800"\n', "<text>:1: invalid escape in a string: no character has this number"),
    ("input_dim: [1 3 229 229]\n", "<text>:1: expected ',' or ']' in the list of 'input_dim', got '3'"),
    ("input_dim: [1, 3,]\n", "<text>:1: expected a value after ',', got ']'"),
    ("input_dim: [1, 3\n", "<text>:2: unexpected end of the text, expected ',' or ']' in the list of 'input_dim'"),
    ("input_dim: [1, [2]]\n", "<text>:1: expected a value in the list of 'input_dim' (line 1), got '['"),
    ('name: ["a", "b"]\n', "<text>:1: 'name': expected one value, got a list"),
    (
        '<<<<<<< HEAD\nname: "a"\n=======\nname: "b"\n>>>>>>> other\n',
        "<text>:1: unresolved merge conflict (<<<<<<<); keep one side and delete the conflict markers",
    ),
    (
        'name: "a"\n=======\nname: "b"\n',
        "<text>:2: unresolved merge conflict (=======); keep one side and delete the conflict markers",
    ),
    ('name: "a"\nname: "b"\n', "<text>:2: 'name': given twice, first in line 1; keep one value"),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: 1\n num_output: 2 } }\n',
        "<text>:2: layer 'c': 'num_output': given twice, first in line 1; keep one value",
    ),
    (
        'layer { name: "c" type: "Convolution" pooling_param { pool: MAX }\n pooling_param { pad: 1 } }\n',
        "<text>:2: layer 'c': 'pooling_param': given twice, first in line 1; keep one value",
    ),
    ("# nothing\n", "<text>:1: the file is empty, expected a net"),
    ("\n", "<text>:1: the file is empty, expected a net"),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: "x" } }\n',
        "<text>:1: layer 'c': 'num_output': expected an integer, got \"x\"",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: -1 } }\n',
        "<text>:1: layer 'c': 'num_output': expected an integer from 0 to 4294967295, got '-1'",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: 4294967296 } }\n',
        "<text>:1: layer 'c': 'num_output': expected an integer from 0 to 4294967295, got '4294967296'",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: 20.0 } }\n',
        "<text>:1: layer 'c': 'num_output': expected an integer, got '20.0'; write 20",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: 09 } }\n',
        "<text>:1: layer 'c': 'num_output': expected an integer, got '09'; write 9",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: ten } }\n',
        "<text>:1: layer 'c': 'num_output': expected an integer, got 'ten'",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: { } } }\n',
        "<text>:1: layer 'c': 'num_output': expected a value, got a message in braces",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: - } }\n',
        "<text>:1: layer 'c': 'num_output': expected an integer, got '-'",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param: 3 }\n',
        "<text>:1: layer 'c': 'convolution_param': expected a message, 'convolution_param { ... }', got '3'",
    ),
    (
        'layer { name: "c" type: "Convolution" param: "w" }\n',
        "<text>:1: layer 'c': 'param': expected a message, 'param { ... }', got \"w\"",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { bias_term: yes } }\n',
        "<text>:1: layer 'c': 'bias_term': expected true or false, got 'yes'",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { bias_term: flase } }\n',
        "<text>:1: layer 'c': 'bias_term': expected true or false, got 'flase'; did you mean 'false'?",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { bias_term: "true" } }\n',
        "<text>:1: layer 'c': 'bias_term': expected true or false, got \"true\"; did you mean 'true'?",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { bias_term: 2 } }\n',
        "<text>:1: layer 'c': 'bias_term': expected true or false, got '2'",
    ),
    (
        'layer { name: "c" type: "Convolution" loss_weight: LAMBDA }\n',
        "<text>:1: layer 'c': 'loss_weight': expected a number, got 'LAMBDA'; is it a placeholder that "
        "was not filled in?",
    ),
    (
        'layer { name: "c" type: "Convolution" loss_weight: 1.2.3 }\n',
        "<text>:1: layer 'c': 'loss_weight': expected a number, got '1.2.3'",
    ),
    (
        'layer { name: "c" type: "Convolution" loss_weight: "1" }\n',
        "<text>:1: layer 'c': 'loss_weight': expected a number, got \"1\"",
    ),
    (
        'layer { name: "c" type: "Convolution" loss_weight: 010 }\n',
        "<text>:1: layer 'c': 'loss_weight': expected a number without leading zeros, got '010'",
    ),
    (
        'layer { name: "c" type: "Convolution" loss_weight: 0x10 }\n',
        "<text>:1: layer 'c': 'loss_weight': expected a number, got '0x10'",
    ),
    (
        'layer { name: "c" type: "Convolution" top: 3 }\n',
        "<text>:1: layer 'c': 'top': expected a string in quotes, got '3'",
    ),
    (
        'layer { name: "c" type: "Convolution" top: %s }\n',
        "<text>:1: unexpected character '%', expected a value for 'top'; is it a placeholder that was not filled in?",
    ),
    (
        'layer { name: "c" type: "Convolution" top: $(NAME) }\n',
        "<text>:1: unexpected character '$', expected a value for 'top'; is it a placeholder that was not filled in?",
    ),
    (
        'layer { name: "c" type: "Convolution" axis_param { a: {} } top: true b }\n',
        "<text>:1: expected ':' or '{' after 'b', got '}'",
    ),
    (
        'layer { name: "a" }\nlayers { name: "b" }\n',
        "<text>:2: 'layers' and 'layer' (line 1) cannot be mixed in a net; write every layer as "
        'layer { type: "..." }',
    ),
    (
        'layers { name: "b" }\n\nlayer { name: "a" }\n',
        "<text>:3: 'layer' and 'layers' (line 1) cannot be mixed in a net; write every layer as "
        'layer { type: "..." }',
    ),
    (
        'layers { layer { name: "p" type: "padding" pad: 2 } bottom: "x" top: "y" }\nlayers { layer { name: '
        '"r" type: "relu" } bottom: "y" top: "z" }\n',
        "<text>:2: layer 'r': reads the padding layer 'p', but only conv and pool layers have padding",
    ),
    (
        'layers { layer { name: "p" type: "padding" pad: 2 } bottom: "x" top: "y" }\nlayers { layer { name: '
        '"r" type: "conv" } bottom: "y" bottom: "q" top: "z" }\n',
        "<text>:2: layer 'r': reads the padding layer 'p': expected one bottom, got 2",
    ),
    (
        'layers { layer { name: "p" type: "padding" pad: 2 } bottom: "x" bottom: "w" top: "y" }\nlayers { '
        'layer { name: "r" type: "conv" } bottom: "y" top: "z" }\n',
        "<text>:2: layer 'r': reads the padding layer 'p', which needs one bottom and one top",
    ),
    (
        'input: "a"\ninput: "b"\ninput_shape { dim: 1 }\n',
        "<text>:2: expected 2 input_shape, one for each input, got 1",
    ),
    (
        'input: "a"\ninput: "b"\ninput_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 5\n',
        "<text>:2: expected 8 input_dim, four for each input, got 5",
    ),
    (
        'layers { name: "c" type: CONVOLUTION param { lr_mult: 1 } }\n',
        "<text>:1: layer 'c': 'param': expected a value, got a message in braces",
    ),
    (
        'layer { name: "c" type: "Convolution" convolution_param { num_output: NCLASS_tpl } }\n',
        "<text>:1: layer 'c': 'num_output': expected an integer, got 'NCLASS_tpl'; is it a placeholder "
        "that was not filled in?",
    ),
    ('layer { name: "a" }\n...\n', "<text>:2: expected a field name, got '...'"),
    ('layer [ { name: "a" }, 3 ]\n', "<text>:1: 'layer': expected a message, 'layer { ... }', got '3'"),
    ("[caffe.extension: 3\n", "<text>:2: unexpected end of the text, expected ']'"),
    ("layer { data: ", "<text>:1: unexpected end of the text, expected a value for 'data'"),
    (
        'layer { name: "a" bottom: "x" "y }\n',
        '<text>:1: the string that starts with " does not end on its line; close the quote',
    ),
    ('layer { name: "é" top: 1 }\n', "<text>:1: layer 'é': 'top': expected a string in quotes, got '1'"),
    ('name: "a"\n\u200blayer { }\n', "<text>:2: unexpected character '\\u200b', expected a field name"),
    ('layer { name: "a\\nb" top: 1 }\n', "<text>:1: layer 'a\\nb': 'top': expected a string in quotes, got '1'"),
    (
        "layer { propagate_down: maybe }\n",
        "<text>:1: layer '': 'propagate_down': expected true or false, got 'maybe'",
    ),
    ('input: "x"\ninput_dim: 1\n', "<text>:1: expected 4 input_dim, four for each input, got 1"),
]

SOLVERS = [
    (
        "random_seed: RANDOM_SEED\n",
        "<text>:1: 'random_seed': expected an integer, got 'RANDOM_SEED'; is it a placeholder that was not filled in?",
    ),
    (
        'solver_type: ADAM\ntype: "SGD"\n',
        "<text>:1: both 'solver_type' and 'type' (line 2) are given; keep 'type'",
    ),
    (
        'type: "SGD"\nsolver_type: FOO\n',
        "<text>:2: both 'solver_type' and 'type' (line 1) are given; keep 'type'",
    ),
    ("max_iter: 1e5\n", "<text>:1: 'max_iter': expected an integer, got '1e5'; write 100000"),
    (
        "max_iter: 9999999999\n",
        "<text>:1: 'max_iter': expected an integer from -2147483648 to 2147483647, got '9999999999'",
    ),
    (
        "base_lr: %f\n",
        "<text>:1: unexpected character '%', expected a value for 'base_lr'; "
        "is it a placeholder that was not filled in?",
    ),
    ("base_lr: 0.1f0\n", "<text>:1: 'base_lr': expected a number, got '0.1f0'"),
    ("device_id: [0, 1]\n", "<text>:1: 'device_id': expected one value, got a list"),
    (
        "solver_mode: GPU\nsolver_mode: GPU\n",
        "<text>:2: 'solver_mode': given twice, first in line 1; keep one value",
    ),
    (
        'net_param { layer { name: "a" type: 3 } }\n',
        "<text>:1: 'type': expected a string in quotes, got '3'",
    ),
    (
        "random_seed: 9223372036854775808\n",
        "<text>:1: 'random_seed': expected an integer from -9223372036854775808 to 9223372036854775807, "
        "got '9223372036854775808'",
    ),
]


def first_problem(read: Callable[[str], ParsedNet | ParsedSolver], text: str) -> ParseError:
    """What stops the reading, or the first of what does not: a value that its field cannot hold is kept."""
    try:
        problems = unknown_problems(read(text))
    except ParseError as problem:
        return problem
    return problems[0]


@pytest.mark.parametrize(("text", "message"), NETS)
def test_each_error_of_a_net_is_one_line(text: str, message: str) -> None:
    assert str(first_problem(parse_net, text)) == message


@pytest.mark.parametrize(("text", "message"), SOLVERS)
def test_each_error_of_a_solver_file_is_one_line(text: str, message: str) -> None:
    assert str(first_problem(parse_solver, text)) == message


def test_a_value_that_its_field_cannot_hold_is_kept_and_refused_where_the_net_is_run() -> None:
    """Forks give fields of Caffe other types: here pooling in three dimensions, and a padding in words."""
    text = """
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }
    layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
      pooling_param { kernel_size: 2 kernel_size: 3 kernel_size: 4 stride: { deep: 1 } } }
    layer { name: "conv" type: "Convolution" bottom: "pool" top: "conv"
      convolution_param { num_output: 5 kernel_size: 2 pad: "SAME" group: [1, 2] } }
    """
    faults = [
        "<text>:4: layer 'pool': 'kernel_size': given twice, first in line 4; keep one value",
        "<text>:4: layer 'pool': 'kernel_size': given twice, first in line 4; keep one value",
        "<text>:4: layer 'pool': 'stride': expected a value, got a message in braces",
        "<text>:6: layer 'conv': 'pad': expected an integer, got \"SAME\"",
        "<text>:6: layer 'conv': 'group': expected one value, got a list",
    ]
    graph = build_graph(parse_net(text))
    assert [str(problem) for problem in graph.problems] == faults
    assert graph.blobs()["conv"].shape == (1, 5, 7, 7)
    assert write_net(parse_net(write_net(parse_net(text)))) == write_net(parse_net(text))
    with pytest.raises(NetError, match="'kernel_size': given twice"):
        Net(text)


def test_a_word_in_place_of_a_message_is_kept_at_the_top_level_too() -> None:
    parsed = parse_net('name: "a"\nlayer: "conv"\ninput: "x"\ninput_shape: 3\n')
    assert [str(problem) for problem in unknown_problems(parsed)] == [
        "<text>:2: 'layer': expected a message, 'layer { ... }', got \"conv\"",
        "<text>:4: 'input_shape': expected a message, 'input_shape { ... }', got '3'",
    ]


def test_solver_settings_that_cannot_be_held_are_refused() -> None:
    parsed = parse_solver('net: "a.prototxt"\nmax_iter: many\nbase_lr: 0.1\nbase_lr: 0.2\n')
    with pytest.raises(SolverError, match="2: 'max_iter': expected an integer, got 'many'"):
        read_settings(parsed)


FILES = [
    (b"", "{file}:1: the file is empty, expected a net"),
    (b"\xef\xbb\xbf", "{file}:1: the file is empty, expected a net"),
    (b"\x1f\x8b\x08\0", "{file}: expected a prototxt, got a gzip archive; unpack it with gunzip"),
    (
        b"\n\x05name\x00",
        "{file}: expected a prototxt, got binary data (byte 0x05); is it a weights file (.caffemodel)?",
    ),
    (
        b"\x0a\x07caffenet\x12\x00",
        "{file}: expected a prototxt, got binary data (byte 0x07); is it a weights file (.caffemodel)?",
    ),
    (b"name: 'a'\nlayer { name \xe9 ' }\n", "{file}:2: unexpected character '\xe9', expected ':' or '{{' after 'name'"),
    (b"name: 'a'\r\nlayer {\r\n  top 'x'\r\n}\r\n", "{file}:3: expected ':' or '{{' after 'top', got 'x'"),
    (b"name: 'a'\rlayer {\r  top 'x'\r}\r", "{file}:3: expected ':' or '{{' after 'top', got 'x'"),
    (b"\xef\xbb\xbfname 'a'\n", "{file}:1: expected ':' or '{{' after 'name', got 'a'"),
]


@pytest.mark.parametrize(("data", "message"), FILES)
def test_bad_file_is_refused_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    with pytest.raises(ParseError) as caught:
        parse_net(path)
    assert str(caught.value) == message.format(file=path)


def test_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "train_test.prototxt").write_text("name: 'a'")
    with pytest.raises(ParseError) as caught:
        parse_net(tmp_path / "train_tset.prototxt")
    assert str(caught.value) == f"{tmp_path}/train_tset.prototxt: no such file; did you mean 'train_test.prototxt'?"


def test_a_text_that_names_no_file_and_is_no_net_is_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lenet.prototxt", "C:\\nets\\lenet.prototxt"):
        with pytest.raises(ParseError) as caught:
            parse_net(name)
        assert str(caught.value) == f"{name}: no such file"


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParseError) as caught:
        parse_net(f"{tmp_path}/nets/a.prototxt")
    assert str(caught.value) == f"{tmp_path}/nets/a.prototxt: no such file: the folder {tmp_path}/nets does not exist"


def test_an_empty_path_is_named_as_such() -> None:
    with pytest.raises(ParseError) as caught:
        parse_net("")
    assert str(caught.value) == "the path is empty"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ParseError) as caught:
        parse_net(tmp_path)
    assert str(caught.value) == f"{tmp_path}: expected a prototxt, got a folder"


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    loop = tmp_path / "loop.prototxt"
    loop.symlink_to(loop)
    with pytest.raises(ParseError) as caught:
        parse_net(loop)
    assert str(caught.value) == f"{loop}: cannot be read: {os.strerror(errno.ELOOP)}"


def test_nesting_is_bounded() -> None:
    assert parse_net("a {" * 100 + "}" * 100).source.unknown[0][1].name == "a"
    with pytest.raises(ParseError) as caught:
        parse_net("a {" * 50 + "\n" + "a {" * 5000)
    assert str(caught.value) == "<text>:2: messages are nested more than 100 levels deep"


def test_errors_know_column_layer_and_line() -> None:
    error = first_problem(parse_net, 'name: "n"\nlayer {\n\tname: "c"\n\tconvolution_param { num_output: x }\n}\n')
    assert error.location is not None
    assert (error.location.line, error.location.column, error.layer) == (4, 34, "c")


def test_binary_nets_are_refused_without_a_place() -> None:
    message = schema.NetParameter(layer=[schema.LayerParameter(name="a")], layers=[schema.V1LayerParameter(name="b")])
    with pytest.raises(ParseError) as caught:
        upgrade_net(message)
    assert caught.value.location is None
