from pathlib import Path

import paths
import pytest
from google.protobuf import text_format

from siamese_proto.errors import Location
from siamese_proto.proto import schema
from siamese_proto.proto.reader import parse_net, parse_solver, unknown_problems
from siamese_proto.proto.upgrade.files import upgrade_net_file, upgrade_solver_file
from siamese_proto.proto.upgrade.net import upgrade_net
from siamese_proto.proto.upgrade.v1 import modern_type
from siamese_proto.proto.writer import write_net

GOLDEN = paths.GOLDEN / "upgrade"
CORPUS = GOLDEN.parent / "corpus"
CASES = sorted(path for path in GOLDEN.glob("*.prototxt") if not path.name.endswith(".expected.prototxt"))
NETS = [path for path in CASES if not path.name.startswith("solver")]
SOLVERS = [path for path in CASES if path.name.startswith("solver")]


def expected(path: Path) -> str:
    return path.with_suffix(".expected.prototxt").read_text()


def net(text: str) -> schema.NetParameter:
    return text_format.Parse(text, schema.NetParameter())


def test_the_vectors_are_there() -> None:
    assert (len(NETS), len(SOLVERS)) == (7, 6)


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.stem)
def test_old_nets_become_what_caffe_made_of_them(path: Path) -> None:
    parsed = parse_net(path)
    assert parsed.message == net(expected(path))
    assert len(parsed.layers) == len(parsed.message.layer)


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.stem)
def test_old_nets_without_places_become_the_same(path: Path) -> None:
    assert upgrade_net(net(path.read_text())) == net(expected(path))


@pytest.mark.parametrize("path", SOLVERS, ids=lambda path: path.stem)
def test_old_solvers_become_what_caffe_made_of_them(path: Path) -> None:
    assert parse_solver(path).message == text_format.Parse(expected(path), schema.SolverParameter())


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_is_upgraded_needs_no_upgrade(path: Path) -> None:
    read = parse_solver if path in SOLVERS else parse_net
    assert read(path.with_suffix(".expected.prototxt")).upgrades == ()


@pytest.mark.parametrize("path", NETS, ids=lambda path: path.stem)
def test_every_field_of_an_upgraded_layer_has_a_place_on_the_line_that_holds_it(path: Path) -> None:
    """The vectors have one layer a line, so a layer's fields must all stand on its line (inputs and padding apart)."""

    parsed = parse_net(path)
    for message, source in zip(parsed.message.layer, parsed.layers, strict=True):
        if message.type == "Input" and source.location.line < 5:
            continue
        lines = {place.line for at, place in source.fields.items() if at != "convolution_param.pad[0]"}
        assert lines == {source.location.line}


V1 = """input: "x" input: "y"
input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4
input_dim: 5 input_dim: 6
input_dim: 7 input_dim: 8
layers {
  name: "d" type: DATA
  data_param {
    scale: 2
    source: "s"
    skale: 3
  }
}
layers { name: "e" type: IMAGE_DATA }
layers {
  name: "c" type: CONVOLUTION
  param: "w"
  blobs_lr: 1
  blobs_lr: 2
  weight_decay: 3
  blob_share_mode: PERMISSIVE
  include { phase: TRAIN
    fase: TEST }
  loss_weight: 4
}
"""


def test_places_follow_the_fields_of_v1_layers() -> None:
    parsed = parse_net(V1)
    first, data, images, conv = parsed.layers
    lines = {path: place.line for path, place in conv.fields.items()}
    assert lines["param[0].name"] == 16
    assert lines["param[0].lr_mult"] == 17
    assert lines["param[1].lr_mult"] == 18
    assert lines["param[0].decay_mult"] == 19
    assert lines["param[0].share_mode"] == 20
    assert lines["include[0].phase"] == 21
    assert lines["loss_weight[0]"] == 23
    assert [(path, raw.name, raw.location.line) for path, raw in conv.unknown] == [("include[0]", "fase", 22)]
    assert data.fields["transform_param.scale"].line == 8
    assert "data_param.scale" not in data.fields
    assert data.fields["data_param.source"].line == 9
    assert [(path, raw.name) for path, raw in data.unknown] == [("data_param", "skale")]
    assert first.location.line == 1
    assert first.fields["top[1]"] == Location("<text>", 1, 12)
    assert first.fields["input_param.shape[1].dim[2]"].line == 4
    assert parsed.source.fields == {}
    assert images.location.line == 13


def test_one_data_layer_with_transform_fields_gives_all_of_them_the_messages() -> None:
    layers = parse_net(V1).message.layer
    assert layers[1].transform_param == schema.TransformationParameter(scale=2)
    assert layers[2].HasField("transform_param")
    assert layers[2].HasField("image_data_param")


def test_notes_say_what_was_changed() -> None:
    assert parse_net(V1).upgrades == (
        "transform fields of data layers moved to transform_param",
        "layers upgraded from V1 to the current format (3)",
        "input fields replaced by the layer 'input' of type Input",
    )


V0 = """name: "v0"
input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
debug_info: true
layers {
  layer { name: "pad" type: "padding"
    pad: 2 }
  bottom: "x" top: "px"
}
layers {
  layer { name: "c" type: "conv"
    num_output: 4
    kernelsize: 5
    stride: 2
    biasterm: false
    weight_filler { type: "gaussian"
      std: 0.5
      sigma: 1 }
    blobs_lr: 1
    cropsize: 7
    local_size: 3
    forked: 1
  }
  bottom: "px" top: "c" loss_weight: 1
}
layers {
  layer { name: "p" type: "pool" kernelsize: 3
    pool: MIN }
  bottom: "c" top: "p"
}
layers { layer { name: "s" type: "images" source: "list" batchsize: 3 new_height: 9 shuffle_images: true } top: "i" }
layers { layer { name: "w" type: "window_data" det_fg_threshold: 0.25 det_crop_mode: "square" } top: "v" }
layers { layer { name: "o" type: "hdf5_output" hdf5_output_param { file_name: "f" } } bottom: "i" bottom: "v" }
"""
V0_TODAY = """name: "v0"
layer { name: "input" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer {
  name: "c" type: "Convolution" bottom: "x" top: "c" param { lr_mult: 1 } transform_param { crop_size: 7 }
  convolution_param {
    num_output: 4 bias_term: false pad: 2 kernel_size: 5 stride: 2 weight_filler { type: "gaussian" std: 0.5 }
  }
}
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 3 } }
layer {
  name: "s" type: "ImageData" top: "i"
  image_data_param { source: "list" batch_size: 3 new_height: 9 shuffle: true }
}
layer { name: "w" type: "WindowData" top: "v" window_data_param { fg_threshold: 0.25 crop_mode: "square" } }
layer { name: "o" type: "HDF5Output" bottom: "i" bottom: "v" hdf5_output_param { file_name: "f" } }
"""


def test_v0_fields_go_where_their_layer_type_has_them() -> None:
    parsed = parse_net(V0)
    assert parsed.message == net(V0_TODAY)
    assert parsed.upgrades == (
        "padding layers merged into the layers that read them (1)",
        "<text>:23: layer 'c': 'loss_weight' dropped: V0 layers of type 'conv' do not have this field",
        "<text>:20: layer 'c': 'local_size' dropped: V0 layers of type 'conv' do not have this field",
        "debug_info dropped: V0 nets do not have this field",
        "layers upgraded from V0 to V1 (5)",
        "layers upgraded from V1 to the current format (5)",
        "input fields replaced by the layer 'input' of type Input",
    )


def test_places_follow_the_fields_of_v0_layers() -> None:
    conv, pool = parse_net(V0).layers[1:3]
    assert conv.location.line == 9
    lines = {path: place.line for path, place in conv.fields.items()}
    assert lines == {
        "name": 10,
        "type": 10,
        "convolution_param.num_output": 11,
        "convolution_param.kernel_size[0]": 12,
        "convolution_param.stride[0]": 13,
        "convolution_param.bias_term": 14,
        "convolution_param.weight_filler": 15,
        "convolution_param.weight_filler.type": 15,
        "convolution_param.weight_filler.std": 16,
        "param[0].lr_mult": 18,
        "transform_param.crop_size": 19,
        "convolution_param.pad[0]": 6,
        "bottom[0]": 23,
        "top[0]": 23,
    }
    assert [(path, raw.name, raw.location.line) for path, raw in conv.unknown] == [
        ("convolution_param.weight_filler", "sigma", 17),
        ("", "forked", 21),
    ]
    assert [(path, raw.name, raw.value) for path, raw in pool.unknown] == [("pooling_param", "pool", "MIN")]


def test_unknown_fields_of_v0_layers_are_named_in_todays_words() -> None:
    messages = [str(problem) for problem in unknown_problems(parse_net(V0))]
    assert messages == [
        "<text>:17: layer 'c': unknown field 'sigma' in convolution_param.weight_filler",
        "<text>:21: layer 'c': unknown field 'forked'",
        "<text>:27: layer 'p': unknown value 'MIN' of pooling_param.pool, expected one of MAX, AVE, STOCHASTIC",
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("CONVOLUTION", "Convolution"),
        ('"CONVOLUTION"', "Convolution"),
        ("4", "Convolution"),
        ("NONE", ""),
        ("JOINT_BAYESIAN", "JOINT_BAYESIAN"),
        ('"Convolution"', "Convolution"),
        ("99", "99"),
    ],
)
def test_v1_types_in_quotes_and_of_forks_are_kept(written: str, read: str) -> None:
    parsed = parse_net(f"layers {{\n  name: 'a'\n  type: {written} }}")
    assert parsed.message.layer[0] == schema.LayerParameter(name="a", type=read)
    assert parsed.layers[0].fields["type"].line == 3
    assert unknown_problems(parsed) == []


def test_a_v1_layer_without_a_type_stays_without() -> None:
    assert not parse_net("layers { name: 'a' }").message.layer[0].HasField("type")


def test_names_of_types_are_those_of_the_registry() -> None:
    """The types of the vectors, and the four they leave out."""
    assert [modern_type(name) for name in ("ELTWISE", "MVN", "DECONVOLUTION", "IM2COL", "NONE")] == [
        "Eltwise",
        "MVN",
        "Deconvolution",
        "Im2col",
        "",
    ]


def test_weights_of_old_binary_nets_are_carried_along() -> None:
    blobs = "blobs { num: 1 channels: 1 height: 2 width: 3 data: [1, 2, 3, 4, 5, 6] }"
    read = upgrade_net(
        net(
            f'input: "x" layers {{ bottom: "x" top: "a" layer {{ name: "a" type: "innerproduct" {blobs} }} }}'
            f'layers {{ name: "b" type: CONVOLUTION {blobs} {blobs} }}'
        )
    )
    assert [layer.type for layer in read.layer] == ["InnerProduct", "Convolution"]
    assert [len(layer.blobs) for layer in read.layer] == [1, 2]
    assert read.layer[1].blobs[1] == text_format.Parse(blobs.removeprefix("blobs {")[:-1], schema.BlobProto())
    assert list(read.input) == []


def test_a_net_of_today_is_left_alone() -> None:
    parsed = parse_net("layer { name: 'bn' type: 'BatchNorm' param { lr_mult: 1 } param { lr_mult: 1 } }")
    assert parsed.upgrades == ()
    assert parsed.message.layer[0].param[0].lr_mult == 1


def test_more_extents_than_inputs_are_ignored_as_in_caffe() -> None:
    text = "input: 'x' " + "".join(f"input_dim: {i} " for i in range(1, 8))
    shape = parse_net(text).message.layer[0].input_param.shape
    assert [list(one.dim) for one in shape] == [[1, 2, 3, 4]]


def test_shapes_win_over_extents() -> None:
    text = "input: 'x' input_shape { dim: 9 } input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4"
    assert list(parse_net(text).message.layer[0].input_param.shape[0].dim) == [9]


def test_what_forks_wrote_in_shapes_of_inputs_goes_to_the_input_layer() -> None:
    parsed = parse_net("input: 'x'\ninput_shape { dim: 2\n dam: 3 }\nodd: 1")
    assert [(path, raw.name, raw.location.line) for path, raw in parsed.layers[0].unknown] == [
        ("input_param.shape[0]", "dam", 3)
    ]
    assert [(path, raw.name) for path, raw in parsed.source.unknown] == [("", "odd")]


def test_an_unknown_solver_type_is_kept_as_the_type() -> None:
    parsed = parse_solver("base_lr: 1\nsolver_type: LARS")
    assert parsed.message == schema.SolverParameter(base_lr=1, type="LARS")
    assert parsed.source.fields["type"].line == 2
    assert parsed.source.unknown == ()


def test_an_upgrade_reports_the_number_of_lost_comments(tmp_path: Path) -> None:
    net, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    net.write_text('# one\nname: "a # no comment"  # two\nlayer { # three\n name: "r" type: "ReLU" }')
    solver.write_text("base_lr: 0.1 # the rate\n")
    assert upgrade_net_file(net, net) == ("comments are not copied (3)",)
    assert upgrade_solver_file(solver, solver) == ("comments are not copied (1)",)
    assert (upgrade_net_file(net, net), upgrade_solver_file(solver, solver)) == ((), ())


def test_v0_layers_of_a_fork_keep_their_settings() -> None:
    written = write_net(parse_net(CORPUS / "v0_type_of_a_fork.prototxt"))
    local = written[written.index('name: "local"') : written.index('name: "prob"')]
    assert " ".join(local.split()) == (
        'name: "local" type: "locally_connected" bottom: "conv" top: "local" '
        "param { lr_mult: 1.0 } param { lr_mult: 2.0 } "
        "locally_connected_param { num_output: 6 biasterm: true "
        'weight_filler { type: "gaussian" std: 0.01 } kernelsize: 3 pool: AVE rounds: 3 } } layer {'
    )
