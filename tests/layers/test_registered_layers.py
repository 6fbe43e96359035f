"""Custom layer types: a class, its settings as a dataclass, and the file that registers both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import siamese_proto as sp
from siamese_proto.check.net import check_net
from siamese_proto.graph.ir import Arity, Filler, exactly
from siamese_proto.layers import base
from siamese_proto.layers.python.user_code import register_layers
from siamese_proto.proto import schema


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what a test registers."""
    monkeypatch.setattr(base, "_REGISTERED", dict(base._REGISTERED))


@dataclass(frozen=True)
class Weighting:
    scale: float = 1.0
    powers: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class MyLossParameters:
    margin: float
    mode: Literal["HARD", "SOFT"] = "HARD"
    mean: bool = False
    label: str | None = None
    weighting: Weighting = Weighting()
    parts: tuple[Weighting, ...] = ()
    weight_filler: Filler = field(default_factory=Filler)
    count: int = field(default=3, metadata={"number": 17})


@pytest.fixture
def my_loss() -> type[sp.Layer]:
    @sp.layer("MyLoss", parameters=MyLossParameters, field="my_loss_param", number=8001)
    class MyLoss(sp.Layer):
        bottoms = exactly(2)
        is_loss = True
        parameters: MyLossParameters

        def top_shapes(self, bottoms):
            if self.parameters.margin < 0:
                raise sp.errors.GraphError("margin is below 0", field="my_loss_param.margin")
            return [()]

        def forward(self, bottoms, params, run):
            return [self.parameters.margin * (bottoms[0] - bottoms[1]).square().sum()]

    return MyLoss


NET = """layer { name: "d" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "l" type: "MyLoss" bottom: "a" bottom: "b" top: "l"
  my_loss_param {
    SETTINGS
  }
}
"""
ALL = """margin: -1.5 mode: SOFT mean: true label: "a b" weighting { scale: 2 powers: [2, 3] } count: 0x10
    parts { powers: 4 powers: 5 } parts { } weight_filler { type: "xavier" variance_norm: AVERAGE }"""
EXPECTED = MyLossParameters(
    -1.5,
    "SOFT",
    True,
    "a b",
    Weighting(2.0, (2, 3)),
    (Weighting(1.0, (4, 5)), Weighting()),
    Filler("xavier", variance_norm="AVERAGE"),
    16,
)


def layer_of(net, problems=None):
    """Return the layer after the inputs. Errors in its shapes are ignored."""
    ignored = [] if problems is None else problems
    instances = []
    kind = base.find_layer("MyLoss")
    kind.read = lambda self, message: instances.append(self)
    sp.build_graph(net, on_problem=ignored.append)
    return instances[0]


def test_settings_are_read_from_text_by_name(my_loss):
    assert layer_of(sp.parse_net(NET.replace("SETTINGS", ALL))).parameters == EXPECTED


def test_omitted_settings_have_their_defaults(my_loss):
    assert layer_of(sp.parse_net(NET.replace("SETTINGS", "margin: 0.5"))).parameters == MyLossParameters(0.5)


def binary_settings(number=8001):
    """Return the settings as another protobuf writes them: by number, from a separate schema."""

    def varint(value):
        return bytes([value]) if value < 128 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)

    def block(number, data):
        return varint(number << 3 | 2) + varint(len(data)) + data

    def single(number, value):
        return varint(number << 3 | 5) + torch.tensor(value).numpy().tobytes()

    weighting = single(1, 2.0) + varint(2 << 3) + b"\2" + varint(2 << 3) + b"\3"
    parts = block(6, varint(2 << 3 | 2) + b"\2\4\5") + block(6, b"")  # packed
    filler = block(1, b"xavier") + varint(8 << 3) + b"\2"
    data = single(1, -1.5) + varint(2 << 3) + b"\1" + varint(3 << 3) + b"\1" + block(4, b"a b") + block(5, weighting)
    data += parts + block(7, filler) + varint(17 << 3) + b"\x10" + varint(99 << 3) + b"\7"
    return block(number, data)


def test_settings_are_read_from_binary_files_by_number(my_loss):
    net = sp.parse_net(NET.replace("my_loss_param", "loss_param").replace("SETTINGS", "")).message
    net.layer[1].MergeFromString(binary_settings())
    binary = schema.NetParameter.FromString(net.SerializeToString())
    assert layer_of(binary).parameters == EXPECTED


def test_settings_read_from_text_are_written_to_binary_files(my_loss):
    graph = sp.build_graph(sp.parse_net(NET.replace("SETTINGS", ALL.replace("-1.5", "1.5"))))
    written = schema.NetParameter(layer=[node.message for node in graph.nodes]).SerializeToString()
    again = sp.build_graph(schema.NetParameter.FromString(written))
    assert again.nodes[1].layer.parameters == graph.nodes[1].layer.parameters
    assert again.nodes[1].layer.parameters.weighting.powers == (2, 3)


def test_the_schema_does_not_change(my_loss):
    before = schema.LayerParameter.DESCRIPTOR.file.serialized_pb
    sp.build_graph(sp.parse_net(NET.replace("SETTINGS", "margin: 2")))
    assert schema.LayerParameter.DESCRIPTOR.file.serialized_pb == before
    assert "my_loss_param" not in schema.LayerParameter.DESCRIPTOR.fields_by_name


def test_a_net_with_a_custom_loss_runs_and_the_parsed_net_does_not_change(my_loss):
    parsed = sp.parse_net(NET.replace("SETTINGS", "margin: 2"))
    for _ in range(2):
        net = sp.Net(parsed)
        assert float(net.loss(net(a=torch.ones(2, 3), b=torch.zeros(2, 3)))) == 12
    assert [raw.name for _, raw in parsed.layers[1].unknown] == ["my_loss_param"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("mrgin: 2", "4: layer 'l': unknown field 'mrgin' in my_loss_param; did you mean 'margin'?"),
        ("margin: 1 mode: SOF", "4: layer 'l': 'mode': expected one of HARD, SOFT, got 'SOF'"),
        ("margin: one", "4: layer 'l': 'margin': expected a number, got 'one'"),
        ("margin: 1\n mean: 2", "5: layer 'l': 'mean': expected true or false, got '2'"),
        ("margin: 1\n margin: 2", "5: layer 'l': 'margin' is given twice; expected one value"),
        ("margin: 1 weighting: 3", "4: layer 'l': 'weighting': expected a message, 'weighting { ... }'"),
        ("margin: 1 label { }", "4: layer 'l': 'label': expected a plain value"),
        ("margin: 1 label: 3", "4: layer 'l': 'label': expected a string in quotes, got '3'"),
        ("margin: 1 count: 1.5", "4: layer 'l': 'count': expected an integer, got '1.5'"),
        (
            "margin: 1 weighting {\n power: 3 }",
            "5: layer 'l': unknown field 'power' in my_loss_param.weighting; did you mean 'powers'?",
        ),
        ("mean: true", "3: layer 'l': my_loss_param.margin is missing; it is required"),
        ("mean: true\n margin: -1", "5: layer 'l': margin is below 0"),
    ],
)
def test_errors_in_settings_are_reported_with_their_line(my_loss, written, expected):
    with pytest.raises(sp.NetError) as caught:
        sp.Net(NET.replace("SETTINGS", written))
    assert str(caught.value) == f"<text>:{expected}"


def test_settings_written_as_a_plain_value_are_refused(my_loss):
    text = 'layer { name: "d" type: "Input" top: "a" }\nlayer { name: "l" type: "MyLoss" my_loss_param: 3 }'
    with pytest.raises(
        sp.NetError, match=r"<text>:2: layer 'l': 'my_loss_param' is a message, expected 'my_loss_param"
    ):
        sp.Net(text)


def test_a_misspelt_name_of_the_settings_is_reported(my_loss):
    with pytest.raises(
        sp.NetError, match=r"3: layer 'l': unknown field 'my_los_param'; did you mean 'my_loss_param'\?"
    ):
        sp.Net(NET.replace("my_loss_param", "my_los_param").replace("SETTINGS", "margin: 1"))


def test_fields_that_no_class_claims_stay_unknown(my_loss):
    text = NET.replace("SETTINGS", "margin: 1").replace('type: "MyLoss"', 'type: "EuclideanLoss"')
    assert [str(finding) for finding in check_net(text)] == [
        "<text>:3: error[unknown-field]: layer 'l': unknown field 'my_loss_param'; did you mean 'loss_param'?"
    ]
    assert check_net(NET.replace("SETTINGS", "margin: 1")) == []


def test_towers_with_other_settings_are_not_fused(my_loss):
    @dataclass(frozen=True)
    class TimesParameters:
        by: float = 1.0

    @sp.layer("Times", parameters=TimesParameters, field="times_param")
    class Times(sp.Layer):
        parameters: TimesParameters

        def top_shapes(self, bottoms):
            return [bottoms[0]]

        def forward(self, bottoms, params, run):
            return [bottoms[0] * self.parameters.by]

        def rows_independent(self):
            return True

    def tower(mark, by):
        return f"""layer {{ name: "ip{mark}" type: "InnerProduct" bottom: "a{mark}" top: "ip{mark}"
          param {{ name: "w" }}
          inner_product_param {{ num_output: 5 bias_term: false weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "t{mark}" type: "Times" bottom: "ip{mark}" top: "t{mark}" times_param {{ by: {by} }} }}"""

    start = 'layer { name: "d" type: "Input" top: "a" top: "a_p" input_param { shape { dim: 2 dim: 3 } } }'
    x = {"a": torch.ones(2, 3), "a_p": torch.full((2, 3), 2.0)}
    for by in (1, 3):
        outputs = sp.Net(start + tower("", 1) + tower("_p", by), seed=1)(**x)
        torch.testing.assert_close(outputs["t_p"], 2 * by * outputs["t"])


def test_an_omitted_number_is_computed_from_the_name():
    @dataclass(frozen=True)
    class Nothing:
        pass

    @sp.layer("One", parameters=Nothing, field="one_param")
    class One(sp.Layer):
        pass

    @sp.layer("Two", parameters=Nothing, field="two_param")
    class Two(sp.Layer):
        pass

    assert One.own_settings.number != Two.own_settings.number
    assert min(One.own_settings.number, Two.own_settings.number) > 100_000


def test_a_second_registration_is_refused_unless_it_replaces(my_loss):
    with pytest.raises(ValueError, match=r"layer type 'MyLoss' is already .*; to replace it: replace=True"):
        sp.layer("MyLoss")(type("Other", (sp.Layer,), {}))

    @sp.layer("TripletLoss", replace=True, parameters=MyLossParameters, field="losses_param")
    class Triplet(sp.Layer):
        bottoms = Arity(2, None)

    assert base.find_layer("TripletLoss") is Triplet


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("loss_param", None, "loss_param is already a field of Caffe; choose another name for the settings"),
        ("center_param", 147, "field 147 is swish_param in Caffe; omit the number of center_param"),
        ("my_param", 19500, "19500 is not a valid field number"),
        ("my_param", 2**29, "536870912 is not a valid field number"),
    ],
)
def test_names_and_numbers_in_use_are_refused(name, number, expected):
    with pytest.raises(ValueError, match=expected):
        sp.layer("Mine", parameters=Weighting, field=name, number=number)


def test_settings_need_a_dataclass_and_a_name():
    with pytest.raises(ValueError, match=r"layer type 'Mine': parameters and field \(the name of the message\) must"):
        sp.layer("Mine", parameters=Weighting)
    with pytest.raises(TypeError, match="int is not a dataclass; settings need a dataclass"):
        sp.layer("Mine", parameters=int, field="mine_param")

    @dataclass(frozen=True)
    class Wrong:
        table: dict[str, int]

    with pytest.raises(TypeError, match=r"Wrong.table cannot be dict\[str, int\]; expected int, float, bool, str"):
        sp.layer("Mine", parameters=Wrong, field="mine_param")


# Layer files

FILE = """
from __future__ import annotations
from dataclasses import dataclass
import siamese_proto as sp
from beside import FACTOR

@dataclass(frozen=True)
class TimesParameters:
    by: float = 1.0

@sp.layer("TimesOf{name}", parameters=TimesParameters, field="times_param")
class Times(sp.Layer):
    def top_shapes(self, bottoms):
        return [bottoms[0]]

    def forward(self, bottoms, params, run):
        return [bottoms[0] * self.parameters.by * FACTOR]
"""


def test_a_layer_file_imports_from_its_folder_and_can_be_loaded_twice(tmp_path):
    (tmp_path / "beside.py").write_text("FACTOR = 3")
    (tmp_path / "mine.py").write_text(FILE.replace("{name}", "File"))
    register_layers(tmp_path / "mine.py")
    register_layers(tmp_path / "mine.py")
    net = sp.Net(
        'layer { name: "d" type: "Input" top: "a" input_param { shape { dim: 2 } } }'
        'layer { name: "t" type: "TimesOfFile" bottom: "a" top: "t" times_param { by: 2 } }'
    )
    assert net(a=torch.ones(2))["t"].tolist() == [6, 6]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\ny = x +\n", "SyntaxError: invalid syntax"),
        ("x = 1\nfoo()\n", "NameError: name 'foo' is not defined"),
        ("import sys\nsys.exit('no')\n", "SystemExit: no"),
        (
            "import siamese_proto as sp\nsp.layer('ReLU')(type('X', (sp.Layer,), {}))",
            "ValueError: layer type 'ReLU' is",
        ),
    ],
)
def test_a_layer_file_that_fails_is_reported_in_one_line(tmp_path, text, expected):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(sp.NetError) as caught:
        register_layers(file)
    assert str(caught.value).startswith(f"layer file '{file}' failed: {expected}")
    assert str(caught.value).endswith(f"({file}:2)")


def test_a_missing_or_non_python_layer_file_is_reported(tmp_path):
    with pytest.raises(sp.NetError, match=r"layer file 'none\.py' does not exist"):
        register_layers("none.py")
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(sp.NetError, match=r"is not a Python file: its name must end in .py"):
        register_layers(tmp_path / "mine.txt")


# Any text

NAMES = [
    "margin",
    "mode",
    "mean",
    "label",
    "weighting",
    "powers",
    "parts",
    "weight_filler",
    "count",
    "type",
    "other",
    "1",
]
VALUES = [
    "1",
    "-2.5",
    "1e999",
    "nan",
    "-inf",
    "0x1F",
    "99999999999999999999",
    "true",
    "SOFT",
    '"a\\377b"',
    "''",
    "[1, 2]",
    "[]",
]


def blocks(inner):
    fields = st.tuples(st.sampled_from(NAMES), inner).map(lambda pair: f"{pair[0]}{pair[1]}")
    return st.lists(fields, max_size=4).map(lambda texts: " { " + " ".join(texts) + " }")


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.sampled_from(VALUES).map(lambda value: f": {value}"), blocks, max_leaves=12))
def test_any_settings_are_read_or_reported(my_loss, text):
    written = NET.replace("my_loss_param {\n    SETTINGS\n  }", f"my_loss_param{text}")
    assert written != NET
    outcome = settings_or_error(written)
    assert isinstance(outcome, MyLossParameters) or "\n" not in str(outcome)


def settings_or_error(text):
    try:
        return sp.Net(text).graph.nodes[1].layer.parameters
    except sp.NetError as error:
        return error
