"""Fields without effect are reported with their line."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from layer_cases import CASES
from layer_harness import message

from siamese_proto.check.idle_fields import FILLER_READS, WAYS_TO_COMPUTE
from siamese_proto.check.net import check_net
from siamese_proto.graph.ir import LayerContext
from siamese_proto.layers.base import registered
from siamese_proto.layers.settings import user_settings as parameters
from siamese_proto.net import fillers
from siamese_proto.proto import schema

HEAD = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 8 } } }\n'


OLD_HEAD = 'input: "x" input_dim: 2 input_dim: 3 input_dim: 9 input_dim: 8\n'


def findings(text: str) -> list[str]:
    """Return the findings for a net; lines omit the code of the findings under test."""
    head = OLD_HEAD if text.startswith("layers") else HEAD
    others = ("old-dialect", "pair-bottoms")  # two bottoms are one blob here
    findings = [finding for finding in check_net(head + text) if finding.code not in others]
    lines = [str(finding).removeprefix("<text>:") for finding in findings]
    return [line.replace(" warning[no-effect]: layer 'it': ", " ") for line in lines]


def layer(kind: str, settings: str, extra: str = "", bottoms: tuple[str, ...] = ("x",)) -> str:
    named = "".join(f' bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{\n name: "it"\n type: "{kind}"{named} top: "y" {extra}\n {settings}\n}}'


CONVOLUTION = "convolution_param { num_output: 2 kernel_size: 3"

# settings of the layer on line 5, expected finding
TABLE = [
    (
        layer("Convolution", CONVOLUTION + "\n engine: CUDNN }"),
        ["6: convolution_param.engine has no effect: torch chooses the implementation"],
    ),
    (
        layer("Convolution", CONVOLUTION + " force_nd_im2col: true }"),
        ["5: convolution_param.force_nd_im2col has no effect: torch chooses the implementation"],
    ),
    (layer("Convolution", CONVOLUTION + " engine: DEFAULT force_nd_im2col: false }"), []),
    (
        layer("Convolution", CONVOLUTION + " }\n pooling_param { kernel_size: 2 }"),
        ["6: pooling_param has no effect on a layer of type Convolution, which reads convolution_param"],
    ),
    (
        layer("AbsVal", "relu_param { negative_slope: 1 }"),
        ["5: relu_param has no effect on a layer of type AbsVal, which has no settings"],
    ),
    (
        layer("EuclideanLoss", "loss_param { normalization: FULL }", bottoms=("x", "x")),
        ["5: loss_param has no effect on a layer of type EuclideanLoss, which has no settings"],
    ),
    (
        layer("SigmoidCrossEntropyLoss", "loss_param {\n normalize: true normalization: FULL }", bottoms=("x", "x")),
        ["6: loss_param.normalize has no effect: normalization is set too"],
    ),
    (layer("SigmoidCrossEntropyLoss", "loss_param { normalize: true }", bottoms=("x", "x")), []),
    (
        layer("InnerProduct", "inner_product_param { num_output: 2 bias_term: false\n bias_filler { } }"),
        ["6: inner_product_param.bias_filler has no effect: bias_term is false"],
    ),
    (
        layer("InnerProduct", 'inner_product_param { num_output: 2 weight_filler { type: "xavier"\n std: 0.1 } }'),
        ["6: inner_product_param.weight_filler.std has no effect on a filler of type 'xavier'"],
    ),
    (layer("InnerProduct", 'inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 0.1 } }'), []),
    (
        layer("Embed", 'embed_param { num_output: 2 input_dim: 4 weight_filler { type: "msra" sparse: 3 } }'),
        ["5: error[net]: layer 'it': embed_param.weight_filler.sparse is not valid for a filler of type 'msra'"],
    ),
    (
        layer("InnerProduct", 'inner_product_param { num_output: 2 weight_filler {\n type: "xaviar" } }'),
        ["6: error[net]: layer 'it': unknown filler type 'xaviar'; did you mean 'xavier'?"],
    ),
    (
        layer("Eltwise", "eltwise_param { operation: MAX coeff: 1 coeff: 2 }", bottoms=("x", "x")),
        ["5: eltwise_param.coeff has no effect; remove it"],
    ),
    (
        layer("Eltwise", "eltwise_param {\n stable_prod_grad: false }", bottoms=("x", "x")),
        ["6: eltwise_param.stable_prod_grad has no effect; remove it"],
    ),
    (
        'layer { name: "c" type: "Input" top: "c" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "it" type: "LSTM" bottom: "x" bottom: "c" top: "y"\n'
        "  recurrent_param { num_output: 2\n debug_info: true } }",
        ["5: recurrent_param.debug_info has no effect; remove it"],
    ),
    (
        'layer { name: "c" type: "Input" top: "s" top: "l" top: "H"\n'
        "  input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } shape { dim: 3 dim: 3 } } }\n"
        'layer { name: "it" type: "InfogainLoss" bottom: "s" bottom: "l" bottom: "H" top: "y"\n'
        '  infogain_loss_param { source: "nowhere" } }',
        ["5: infogain_loss_param.source has no effect; remove it"],
    ),
    (
        'layer { name: "it" type: "DummyData" top: "y" dummy_data_param { shape { dim: 2 }\n'
        '  data_filler { type: "uniform" value: 2 } } }',
        ["3: dummy_data_param.data_filler[0].value has no effect on a filler of type 'uniform'"],
    ),
    (
        'layer { name: "it" type: "Data" top: "y" include { phase: TRAIN } data_param {\n source: "none"\n scale: 0.5\n'
        " rand_skip: 3 } transform_param { mirror: true } }",
        [
            "4: data_param.scale has no effect; write it in transform_param",
            "5: data_param.rand_skip has no effect; remove it",
        ],
    ),
    (
        layer("EuclideanLoss", "propagate_down: true\n propagate_down: false", bottoms=("x", "x")),
        [],
    ),
    (
        layer("SigmoidCrossEntropyLoss", "propagate_down: true\n propagate_down: true", bottoms=("x", "x")),
        ["6: propagate_down true has no effect: SigmoidCrossEntropyLoss has no gradient for bottom 1"],
    ),
    # The oldest formats: fields moved to transform_param have an effect there.
    (
        'layers { name: "it" type: DATA top: "y" data_param { source: "none" scale: 0.5 } }\n'
        'layers { name: "it" type: RELU bottom: "x" top: "z" relu_param {\n engine: CAFFE } }',
        ["4: relu_param.engine has no effect: torch chooses the implementation"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_a_field_without_effect_is_reported_with_its_line(text: str, expected: list[str]) -> None:
    assert findings(text) == expected


def test_check_reports_fields_without_effect_and_still_succeeds(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from siamese_proto.cli import main

    (tmp_path / "net.prototxt").write_text(HEAD + layer("ReLU", "relu_param { engine: CUDNN }"))
    done = CliRunner().invoke(main, ["check", str(tmp_path / "net.prototxt")])
    assert done.exit_code == 0
    assert "net.prototxt:5: warning[no-effect]: layer 'it': relu_param.engine has no effect" in done.output


class Watched:
    """A message that records which settings messages are read from it."""

    def __init__(self, watched: schema.LayerParameter) -> None:
        self.watched = watched
        self.read_names: set[str] = set()

    def __getattr__(self, name: str) -> object:
        if name.endswith("_param"):
            self.read_names.add(name)
        return getattr(self.watched, name)


@pytest.mark.parametrize("kind", sorted({case[0] for case in CASES}))
def test_a_type_reads_only_its_declared_settings(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # protobuf only finds unknown fields in its own messages.
    monkeypatch.setattr(parameters, "UnknownFieldSet", lambda watched: UnknownFieldSet(watched.watched))
    read_names: set[str] = set()
    for _, text, shapes, tops in (case for case in CASES if case[0] == kind):
        numbers = {"a": 1, "b": 2, "c": 2}
        watched = Watched(message(f'type: "{kind}" {text.format(**numbers)}', len(shapes), tops))
        registered()[kind](watched, LayerContext("TRAIN"))  # type: ignore[arg-type]  # stands for the message
        read_names |= watched.read_names
    fields = schema.LayerParameter.DESCRIPTOR.fields_by_name
    described = {name: fields[name].message_type.fields_by_name for name in registered()[kind].reads}
    # Fields that only choose between implementations are not read.
    assert read_names == {name for name, settings in described.items() if set(settings) - set(WAYS_TO_COMPUTE)}


def test_the_fields_of_every_filler_are_listed() -> None:
    assert set(FILLER_READS) == set(fillers._FILLERS)
