from pathlib import Path

import pytest
import torch

from siamese_proto.errors import Location
from siamese_proto.net.net import Net
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import RawField
from siamese_proto.proto.reader import inline_net, parse_net, parse_solver, read_message, unknown_problems

NET = """name: "twin"  # line 1
state { phase: TRAIN }
layer {
  name: "conv1"
  type: "Convolution"
  bottom: "data" bottom: "more"
  param { name: "w" lr_mult: 1 }
  param { name: "b"
    lr_mult: 2 }
  convolution_param {
    num_output: 20
    kernel_size: [5,
      3]
  }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
"""


def test_every_layer_and_field_knows_its_line_and_column() -> None:
    parsed = parse_net(NET)
    assert [source.location for source in parsed.layers] == [Location("<text>", 3, 1), Location("<text>", 16, 1)]
    conv, relu = parsed.layers
    assert conv.fields["name"] == Location("<text>", 4, 3)
    assert conv.fields["bottom[1]"] == Location("<text>", 6, 18)
    assert conv.fields["param[1]"] == Location("<text>", 8, 3)
    assert conv.fields["param[1].lr_mult"] == Location("<text>", 9, 5)
    assert conv.fields["convolution_param"] == Location("<text>", 10, 3)
    assert conv.fields["convolution_param.num_output"] == Location("<text>", 11, 5)
    assert conv.fields["convolution_param.kernel_size[0]"] == Location("<text>", 12, 19)
    assert conv.fields["convolution_param.kernel_size[1]"] == Location("<text>", 13, 7)
    assert relu.fields["top[0]"] == Location("<text>", 16, 52)
    assert parsed.source.fields == {
        "name": Location("<text>", 1, 1),
        "state": Location("<text>", 2, 1),
        "state.phase": Location("<text>", 2, 9),
    }


def test_a_field_that_was_not_written_is_found_at_what_is_around_it() -> None:
    conv = parse_net(NET).layers[0]
    assert conv.find("convolution_param.stride[0]").line == 10
    assert conv.find("param[1].decay_mult").line == 8
    assert conv.find("pooling_param.kernel_size").line == 3
    assert conv.find(None).line == 3


def test_file_names_are_those_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.chdir(tmp_path)
    for path in ("net.prototxt", Path("net.prototxt"), "./net.prototxt"):
        parsed = parse_net(path)
        assert parsed.file == str(path)
        assert parsed.layers[1].location.file == str(path)
        assert parsed.message == parse_net(NET).message


def test_solvers_are_read_from_text_without_braces() -> None:
    parsed = parse_solver('net: "train_test.prototxt"')
    assert parsed.message == schema.SolverParameter(net="train_test.prototxt")


def test_what_the_schema_does_not_know_is_kept_with_its_place() -> None:
    parsed = parse_net(
        'ame: "n"\nlayer {\n  name: "c"\n  type: "Flip"\n'
        '  flip_param { width: true deep { size: [1, -2.5e3] text: "a\\"b" "c" } }\n'
        "  convolution_param { engine: MKL2017 kernal_size: 3\n    weight_filler { typ: 'x' } }\n  phase: 7\n}\n"
    )
    (layer,) = parsed.layers
    assert parsed.source.unknown == (("", RawField("ame", "n", Location("<text>", 1, 1), is_string=True)),)
    at = [(path, raw.name, raw.location.line, raw.location.column) for path, raw in layer.unknown]
    assert at == [
        ("", "flip_param", 5, 3),
        ("convolution_param", "engine", 6, 23),
        ("convolution_param", "kernal_size", 6, 39),
        ("convolution_param.weight_filler", "typ", 7, 21),
        ("", "phase", 8, 3),
    ]
    assert layer.unknown[0][1] == RawField(
        "flip_param",
        (
            RawField("width", "true", Location("<text>", 5, 16)),
            RawField(
                "deep",
                (
                    RawField("size", "1", Location("<text>", 5, 42)),
                    RawField("size", "-2.5e3", Location("<text>", 5, 45)),
                    RawField("text", 'a"bc', Location("<text>", 5, 53), is_string=True),
                ),
                Location("<text>", 5, 28),
            ),
        ),
        Location("<text>", 5, 3),
    )
    assert not parsed.message.layer[0].convolution_param.HasField("engine")


def test_unknown_fields_and_values_are_named_with_the_nearest_known_ones() -> None:
    parsed = parse_net(
        'layer {\n  name: "c"\n  convolution_param { kernal_size: 3\n    '
        "weight_filler { variance_norm: FAN_INN }\n  }\n  poolingparam { }\n"
        "  param { lr_mul: 1 }\n  flip_param { }\n}\nlayr { }\n[caffe.x] { }\n17: 3\n"
    )
    problems = unknown_problems(parsed)
    assert [str(problem) for problem in problems] == [
        "<text>:3: layer 'c': unknown field 'kernal_size' in convolution_param; did you mean 'kernel_size'?",
        "<text>:4: layer 'c': unknown value 'FAN_INN' of convolution_param.weight_filler.variance_norm, expected one "
        "of FAN_IN, FAN_OUT, AVERAGE; did you mean 'FAN_IN'?",
        "<text>:6: layer 'c': unknown field 'poolingparam'; did you mean 'pooling_param'?",
        "<text>:7: layer 'c': unknown field 'lr_mul' in param[0]; did you mean 'lr_mult'?",
        "<text>:8: layer 'c': unknown field 'flip_param'; did you mean 'clip_param'?",
        "<text>:10: unknown field 'layr'; did you mean 'layer'?",
        "<text>:11: unknown field '[caffe.x]'",
        "<text>:12: unknown field '17'",
    ]
    assert problems[0].field == "convolution_param.kernal_size"


def test_unknown_fields_of_a_solver_are_named() -> None:
    problems = unknown_problems(parse_solver('step_size: 3\nsolver_mode: TPU\ntest_state { stages: "a" }\n'))
    assert [str(problem) for problem in problems] == [
        "<text>:1: unknown field 'step_size'; did you mean 'stepsize'?",
        "<text>:2: unknown value 'TPU' of solver_mode, expected one of CPU, GPU; did you mean 'GPU'?",
        "<text>:3: unknown field 'stages' in test_state[0]; did you mean 'stage'?",
    ]


def test_fields_of_the_current_format_in_an_old_layer_are_not_reported_as_misspelt() -> None:
    problems = unknown_problems(parse_net("layers { name: 'a' type: RELU phase: TRAIN prelu_param { } }"))
    assert [problem.message for problem in problems] == [
        "unknown field 'phase' in this old format; write the layer as layer { ... }",
        "unknown field 'prelu_param' in this old format; write the layer as layer { ... }",
    ]


def test_encodings_of_real_files_are_read(tmp_path: Path) -> None:
    text = "name: '比较'\nlayer { name: 'a' }\n"
    path = tmp_path / "net.prototxt"
    for encoding, notes in {
        "utf-8": (),
        "utf-8-sig": (),
        "gb18030": ("read as GB18030, not UTF-8",),
        "utf-16": ("read as UTF-16, not UTF-8",),
    }.items():
        path.write_bytes(text.encode(encoding))
        parsed = parse_net(path)
        assert parsed.message == schema.NetParameter(name="比较", layer=[schema.LayerParameter(name="a")])
        assert parsed.upgrades == notes
        assert parsed.source.fields["name"] == Location(str(path), 1, 1)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them(tmp_path: Path, end: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(end.join(["# head", "name: 'n' # tail", "layer {", "\tname: 'a'", "}"]).encode())
    parsed = parse_net(path)
    assert parsed.source.fields["name"] == Location(str(path), 2, 1)
    assert parsed.layers[0].fields["name"] == Location(str(path), 4, 2)


def test_bytes_of_no_other_encoding_are_letters_of_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes("# r\u00e9seau\nname: 'caf\u00e9 noir'\n".encode("latin-1"))
    parsed = parse_net(path)
    assert parsed.message.name == "caf\u00e9 noir"
    assert parsed.upgrades == ("read as Latin-1, not UTF-8",)


def test_the_mark_that_ends_a_text_in_dos_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"name: 'n'\r\n\x1a")
    assert parse_net(path).message == schema.NetParameter(name="n")


def test_a_byte_order_mark_before_a_text_is_skipped() -> None:
    assert parse_net("\ufeffname: 'n'").message == schema.NetParameter(name="n")


def test_any_message_of_the_schema_can_be_read() -> None:
    state, source = read_message("phase: TRAIN\nstage: 'a' stage: 'b'\nlevle: 2", schema.NetState, "state.txt")
    assert state == schema.NetState(phase=schema.TRAIN, stage=["a", "b"])
    assert source.fields["stage[1]"] == Location("state.txt", 2, 12)
    assert source.unknown[0][1].name == "levle"


def test_nets_inside_a_solver_are_read_with_their_own_places() -> None:
    parsed = parse_solver(
        "base_lr: 1\ntrain_net_param { name: 'a' layer { name: 'x' } }\n"
        "test_net_param { name: 'b' }\ntest_net_param { name: 'c'\n"
        "  layers { name: 'old' type: RELU blobs_lr: 3 fork: 1 }\n  odd: 2\n}\n"
    )
    train = inline_net(parsed, "train_net_param")
    assert (train.message.name, train.layers[0].location.line) == ("a", 2)
    test = inline_net(parsed, "test_net_param[1]")
    assert test.message.layer[0] == schema.LayerParameter(name="old", type="ReLU", param=[schema.ParamSpec(lr_mult=3)])
    assert test.layers[0].fields["param[0].lr_mult"] == Location("<text>", 5, 35)
    assert [(path, raw.name) for path, raw in test.layers[0].unknown] == [("", "fork")]
    assert [(path, raw.name) for path, raw in test.source.unknown] == [("", "odd")]
    assert parsed.message.test_net_param[1].layers[0].name == "old"  # as written
    assert len(unknown_problems(parsed)) == 2


def test_a_net_of_many_layers_has_a_place_for_each() -> None:
    parsed = parse_net("".join(f"layer {{ name: 'l{i}' type: 'ReLU'\n bottom: 'b' fork{i}: 1 }}\n" for i in range(300)))
    assert [source.location.line for source in parsed.layers] == [2 * i + 1 for i in range(300)]
    assert [source.unknown[0][1].name for source in parsed.layers] == [f"fork{i}" for i in range(300)]


def test_engines_of_forks_change_nothing_and_are_kept() -> None:
    text = """
    engine: "MKL2017"
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }
    layer { name: "pool" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 engine: MKLDNN } }
    layer { name: "both" type: "Concat" bottom: "y" bottom: "y" top: "z" concat_param { engine: MKL2017 } }
    """
    parsed = parse_net(text)
    assert unknown_problems(parsed) == []
    assert [path for source in (parsed.source, *parsed.layers) for path, _ in source.unknown] == [
        "",
        "pooling_param",
        "concat_param",
    ]
    blob = torch.arange(2.0 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    assert Net(text)(x=blob)["z"].shape == (2, 6, 4, 6)
