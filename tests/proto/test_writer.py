import stat
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import given, settings
from test_text_format import ROOTS, filled

from siamese_proto.errors import NetError
from siamese_proto.proto import schema
from siamese_proto.proto.reader import parse_net, parse_solver, read_message
from siamese_proto.proto.writer import message_text, save_text, write_net, write_solver

FORKED = """ame: "n"
layer {
  name: "quote\\"s <b> / \\n \u00e9 \u6bd4"
  type: "Convolution"
  param { name: "w" lr_mul: 3 }
  convolution_param { num_output: 3 engine: MKL2017 kernal_size: 5 weight_filler { type: "x" typ: 'y' } }
  flip_param { width: true deep < size: [1, -2.5e3] text: "a\\"b\\n\\377" name: "\u6bd4" > }
}
layer { name: "plain" type: "ReLU" }
"""
WRITTEN = """layer {
  name: "quote\\"s <b> / \\n \u00e9 \u6bd4"
  type: "Convolution"
  param {
    name: "w"
    lr_mul: 3
  }
  convolution_param {
    num_output: 3
    weight_filler {
      type: "x"
      typ: "y"
    }
    engine: MKL2017
    kernal_size: 5
  }
  flip_param {
    width: true
    deep {
      size: 1
      size: -2.5e3
      text: "a\\"b\\n\\377"
      name: "\u6bd4"
    }
  }
}
layer {
  name: "plain"
  type: "ReLU"
}
ame: "n"
"""


def test_what_the_schema_does_not_know_is_written_in_its_message() -> None:
    assert write_net(parse_net(FORKED)) == WRITTEN


def test_what_was_written_is_read_back_equal() -> None:
    parsed = parse_net(FORKED)
    again = parse_net(write_net(parsed))
    assert again.message == parsed.message
    assert write_net(again) == WRITTEN
    for source, other in zip(parsed.layers, again.layers, strict=True):
        assert sorted((path, raw.name) for path, raw in source.unknown) == sorted(
            (path, raw.name) for path, raw in other.unknown
        )


def test_upgraded_nets_keep_what_forks_wrote() -> None:
    parsed = parse_net("layers { name: 'a' type: DISTANCE blobs_lr: 1 distance_param { p: 2 } }")
    assert write_net(parsed) == (
        'layer {\n  name: "a"\n  type: "DISTANCE"\n  param {\n    lr_mult: 1.0\n  }\n'
        "  distance_param {\n    p: 2\n  }\n}\n"
    )


def test_an_unknown_value_alone_in_its_message_is_written() -> None:
    for text in (
        "layer { pooling_param { pool: MIN } }",
        "layers { layer { type: 'pool' pool: MIN } }",
    ):
        assert "pooling_param {\n    pool: MIN\n  }" in write_net(parse_net(text))


def test_solvers_are_written_with_what_is_unknown() -> None:
    parsed = parse_solver("step_size: 3\nbase_lr: 0.01\nsolver_type: ADAM\ntest_state { levl: 1 }\n")
    assert write_solver(parsed) == ('base_lr: 0.01\ntest_state {\n  levl: 1\n}\ntype: "Adam"\nstep_size: 3\n')


@settings(deadline=None, max_examples=60)
@given(ROOTS.flatmap(lambda name: filled(getattr(schema, name)())))
def test_the_layout_is_that_of_protobuf(message: Message) -> None:
    text = message_text(message)
    assert text == text_format.MessageToString(message)
    assert read_message(text, type(message))[0] == message


def test_a_saved_text_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("old")
    save_text(path, WRITTEN)
    assert path.read_bytes() == WRITTEN.encode()
    assert list(tmp_path.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_text_that_cannot_be_saved_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        save_text(path, "half \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_missing_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "none" / "net.prototxt"
    with pytest.raises(NetError) as caught:
        save_text(path, "x")
    assert str(caught.value) == f"cannot write '{path}': there is no folder '{tmp_path}/none'"
