"""Solver files, and the errors in them."""

from pathlib import Path

import pytest

from siamese_proto.errors import NetError
from siamese_proto.proto.reader import parse_solver
from siamese_proto.solver.settings import Settings, find_problems, read_settings, with_state

NET = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
GOOD = {"net": '"net.prototxt"', "base_lr": "0.01", "lr_policy": '"fixed"', "max_iter": "10"}


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)


def read(lines: str = "", **fields: str | None) -> Settings:
    """A valid solver with some fields replaced or, if None, left out, and `lines` at the end."""
    written = {name: value for name, value in {**GOOD, **fields}.items() if value is not None}
    text = "".join(f"{name}: {value}\n" for name, value in written.items())
    Path("solver.prototxt").write_text(text + lines)
    return read_settings(Path("solver.prototxt"))


POLICIES = "fixed, step, exp, inv, multistep, poly, sigmoid, cosine"
TEST = {"test_iter": "3", "test_interval": "5"}

# fields that replace the valid ones, lines that follow them (line 5 on), line of the error, message
MISTAKES: list[tuple[dict[str, str | None], str, int, str]] = [
    ({"base_lr": None}, "", 1, "base_lr is missing: the learning rate to begin with, for example base_lr: 0.01"),
    ({"lr_policy": None}, "", 1, f"lr_policy is missing; it is one of {POLICIES}"),
    ({"net": None}, "", 1, 'no net to train; name one, for example net: "train_test.prototxt"'),
    ({"lr_policy": '"Fixd"'}, "", 3, f"unknown lr_policy 'Fixd'; it is one of {POLICIES}; did you mean 'fixed'?"),
    ({"lr_policy": '"step"'}, "stepsize: 5", 3, "lr_policy 'step' needs gamma, which is missing"),
    ({"lr_policy": '"step"'}, "gamma: 0.5", 3, "lr_policy 'step' needs stepsize, which is missing"),
    ({"lr_policy": '"exp"'}, "", 3, "lr_policy 'exp' needs gamma, which is missing"),
    ({"lr_policy": '"inv"'}, "gamma: 0.5", 3, "lr_policy 'inv' needs power, which is missing"),
    ({"lr_policy": '"multistep"'}, "gamma: 0.5", 3, "lr_policy 'multistep' needs stepvalue, which is missing"),
    ({"lr_policy": '"poly"'}, "", 3, "lr_policy 'poly' needs power, which is missing"),
    (
        {"lr_policy": '"poly"', "max_iter": "0"},
        "power: 1",
        3,
        "lr_policy 'poly' needs a positive max_iter and a power of at least 0",
    ),
    ({"lr_policy": '"sigmoid"'}, "gamma: -0.5", 5, "gamma is -0.5; it must not be negative"),
    ({}, "stepsize: 0", 5, "stepsize is 0; it must be positive"),
    ({}, "stepvalue: 9\nstepvalue: 5", 5, "stepvalue is [9, 5]; it must not go down"),
    ({}, "stepvalue: 5\nstepvalue: -9", 6, "stepvalue is -9; it must not be negative"),
    ({"base_lr": "-0.1"}, "", 2, "base_lr is -0.1; it must not be negative"),
    ({"base_lr": "nan"}, "", 2, "base_lr is nan; it must not be negative"),
    ({"max_iter": "-1"}, "", 4, "max_iter is -1; it must not be negative"),
    ({}, "momentum: -0.9", 5, "momentum is -0.9; it must not be negative"),
    ({}, "weight_decay: -1", 5, "weight_decay is -1; it must not be negative"),
    ({}, "iter_size: 0", 5, "iter_size is 0; it must be positive"),
    ({}, "average_loss: 0", 5, "average_loss is 0; it must be positive"),
    ({}, "display: -5", 5, "display is -5; it must not be negative"),
    ({}, "snapshot: -5", 5, "snapshot is -5; it must not be negative"),
    ({}, "test_interval: 5\ntest_iter: 0", 6, "test_iter is 0; it must be positive"),
    ({}, "momentum2: 1", 5, "momentum2 is 1; it must be below 1"),
    ({}, "rms_decay: 1.5", 5, "rms_decay is 1.5; it must be below 1"),
    (
        {},
        'type: "Adm"',
        5,
        "unknown type 'Adm'; it is one of SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam, AdamW; did you mean 'Adam'?",
    ),
    ({}, 'regularization_type: "L3"', 5, "unknown regularization_type 'L3'; it is one of L2, L1"),
    ({}, 'type: "AdaGrad"\nmomentum: 0.9', 6, "momentum is 0.9, but AdaGrad has none; leave it out"),
    ({}, 'type: "Adam"\nmomentum: 1', 6, "momentum is 1; for Adam it must be below 1"),
    ({}, 'type: "AdamW"\nmomentum: 1', 6, "momentum is 1; for AdamW it must be below 1"),
    (
        {},
        'type: "AdamW"\nregularization_type: "L1"',
        6,
        "regularization_type is 'L1', but AdamW decays weights as L2 does",
    ),
    ({"lr_policy": '"cosine"'}, "warmup_iter: 10", 3, "lr_policy 'cosine' needs a max_iter above warmup_iter"),
    ({}, "warmup_iter: -1", 5, "warmup_iter is -1; it must not be negative"),
    ({}, 'train_net: "net.prototxt"', 5, "net and train_net both name the net to train; keep one of them"),
    ({}, 'net_param { name: "x" }', 5, "net and net_param both name the net to train; keep one of them"),
    (
        {"net": None},
        'train_net: "net.prototxt"\ntest_interval: 5\ntest_iter: 3',
        6,
        "test_iter number 1 has no test net; name one with test_net",
    ),
    (
        {},
        'test_net: "net.prototxt"',
        5,
        "test net number 1 has no test_iter, the number of batches per test",
    ),
    (
        {},
        "test_iter: 3",
        5,
        "test_iter without test_interval: after how many iterations to test, for example test_interval: 500",
    ),
    (
        {},
        "test_iter: 3\ntest_interval: 0",
        6,
        "test_interval is 0, but there are test nets; it must be positive",
    ),
    (
        TEST,
        "test_state { level: 1 }\ntest_state { level: 2 }",
        7,
        "2 test_state, but the number of test nets is 1; give one for each, or none",
    ),
    ({"net": '""'}, "", 1, "the path of the net is empty"),
    (
        {"net": '"/nowhere/net.prototxt"'},
        "",
        1,
        "net file '/nowhere/net.prototxt' not found; a file of that name is next to the solver: net: \"net.prototxt\"",
    ),
    ({}, "stepearly: 5", 5, "unknown field 'stepearly'; did you mean 'stepvalue'?"),
    ({}, "momentun: 0.9", 5, "unknown field 'momentun'; did you mean 'momentum'?"),
    ({}, "solver_mode: GPUS", 5, "unknown value 'GPUS' of solver_mode, expected one of CPU, GPU; did you mean 'GPU'?"),
]


@pytest.mark.parametrize(("fields", "lines", "line", "message"), MISTAKES, ids=[row[3][:50] for row in MISTAKES])
def test_an_error_has_its_line(fields: dict[str, str | None], lines: str, line: int, message: str) -> None:
    with pytest.raises(NetError) as caught:
        read(lines, **fields)
    assert str(caught.value) == f"solver.prototxt:{line}: {message}"


def test_all_errors_of_a_file_can_be_listed() -> None:
    with pytest.raises(NetError):
        read("momentun: 1\nmomentum: -1\nstepsize: 0", lr_policy='"fixd"', type='"Adm"', net='"gone"')
    problems = find_problems(parse_solver(Path("solver.prototxt")))
    lines = [problem.location.line for problem in problems if problem.location]
    assert sorted(lines) == [1, 3, 5, 6, 7, 8]


def test_a_missing_net_is_reported_with_the_folders_that_were_searched(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Path("sub/solver.prototxt").write_text('net: "nett.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1')
    with pytest.raises(NetError) as caught:
        read_settings("sub/solver.prototxt")
    assert str(caught.value) == (
        "sub/solver.prototxt:1: net file 'nett.prototxt' not found in the working directory or next to the solver file"
    )


def test_defaults_are_those_of_caffe() -> None:
    settings = read()
    assert (settings.rule.type, settings.rule.momentum, settings.rule.momentum2) == ("SGD", 0, pytest.approx(0.999))
    assert (settings.rule.weight_decay, settings.rule.regularization, settings.rule.clip_gradients) == (0, "L2", -1)
    assert (settings.rule.iter_size, settings.average_loss, settings.display, settings.snapshot) == (1, 1, 0, 0)
    assert (settings.snapshot_after_train, settings.snapshot_format) == (True, "BINARYPROTO")
    assert (settings.test_initialization, settings.test_nets, settings.random_seed) == (True, (), -1)
    assert (settings.use_gpu, settings.asks_for_gpu) == (True, False)


@pytest.mark.parametrize(
    ("line", "prefix"),
    [
        ("", "solver"),
        ('snapshot_prefix: "models/x"', "models/x"),
        ('snapshot_prefix: "folder"', "folder/solver"),
        ('snapshot_prefix: "folder/"', "folder/solver"),
    ],
)
def test_the_default_snapshot_prefix_is_the_name_of_the_solver_file(line: str, prefix: str) -> None:
    Path("folder").mkdir()
    assert read(line).snapshot_prefix == prefix


def test_paths_are_relative_to_the_working_directory_then_to_the_solver_file() -> None:
    Path("sub/deep").mkdir(parents=True)
    Path("sub/own.prototxt").write_text(NET.replace('"x"', '"from_sub"'))
    Path("sub/net.prototxt").write_text(NET.replace('"x"', '"from_sub"'))
    Path("sub/a.caffemodel").touch()
    text = 'base_lr: 1 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "deep/x" weights: "a.caffemodel, b.caffemodel"'
    for name, top in (("own", "from_sub"), ("net", "x")):
        Path("sub/solver.prototxt").write_text(f'net: "{name}.prototxt" {text}')
        settings = read_settings("sub/solver.prototxt")
        assert settings.weights == ("sub/a.caffemodel", "b.caffemodel")
        assert settings.net.parsed.message.layer[0].top[0] == top
        assert settings.snapshot_prefix == "sub/deep/x"


def test_a_solver_may_be_given_as_text() -> None:
    settings = read_settings('net: "net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 7')
    assert (settings.file, settings.max_iter, settings.snapshot_prefix) == ("<text>", 7, "snapshot")


def test_test_nets_have_caffes_order_and_the_net_itself_comes_last() -> None:
    Path("other.prototxt").write_text(NET.replace('"x"', '"other"'))
    inline = "test_net_param { " + NET.replace('"x"', '"inline"') + " }\n"
    settings = read(
        'test_net: "other.prototxt"\ntest_interval: 5\ntest_iter: 1\ntest_iter: 2\ntest_iter: 3\ntest_iter: 4\n'
        + inline
    )
    tests = [(test.source.parsed.message.layer[0].top[0], test.iterations) for test in settings.test_nets]
    assert tests == [("inline", 1), ("other", 2), ("x", 3), ("x", 4)]
    assert settings.test_nets[0].source.parsed.layers[0].location.line == 11
    assert settings.test_nets[1].source.description == "test_net file: other.prototxt"


def test_states_of_the_solver_override_those_of_the_net() -> None:
    Path("net.prototxt").write_text('state { level: 3 stage: "own" }\n' + NET)
    settings = read(
        'test_interval: 5\ntest_iter: 1\ntest_iter: 1\ntrain_state { level: 7 stage: "a" }\n'
        'test_state { stage: "b" }\ntest_state { level: 8 phase: TRAIN }'
    )
    sources = [settings.net, *(test.source for test in settings.test_nets)]
    states = [(source.phase, source.level, source.stages) for source in sources]
    assert states == [("TRAIN", 7, ("a",)), ("TEST", 3, ("b",)), ("TRAIN", 8, ())]


def test_the_command_line_changes_only_the_state_of_the_training_net() -> None:
    settings = read('test_interval: 5\ntest_iter: 1\ntrain_state { level: 7 stage: "a" }')
    changed = with_state(settings, 2, ("b",))
    assert (changed.net.level, changed.net.stages) == (2, ("a", "b"))
    assert with_state(settings) == settings
    assert changed.test_nets == settings.test_nets


def test_settings_without_an_effect_are_noted() -> None:
    lines = "test_interval: 5\ndebug_info: true\nlayer_wise_reduce: false\ndevice_id: 2\nsolver_mode: CPU"
    assert read(lines).notes == (
        "solver.prototxt: test_interval does nothing without test_iter: nothing is tested",
        "solver.prototxt: debug_info does nothing without display: it is logged with the displayed losses",
        "solver.prototxt: layer_wise_reduce has no effect: gradients of several GPUs are always averaged together",
        "solver.prototxt: device_id has no effect with solver_mode: CPU",
    )
    assert read("display: 5\ndebug_info: true\nsnapshot_diff: true\ndevice_id: 2").notes == ()


def test_settings_are_read_without_torch() -> None:
    import subprocess
    import sys

    read()
    code = (
        "import sys; from siamese_proto.solver.settings import read_settings; read_settings('solver.prototxt');"
        "print('torch._C' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
