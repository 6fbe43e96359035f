"""Common mistakes and the one-line error for each of them: the table is the test.

Every row changes something in a folder that trains, runs a command and reads stderr.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from problem_lines import problem_lines

from siamese_proto.cli import main
from siamese_proto.data.databases.database import create_database
from siamese_proto.errors import did_you_mean
from siamese_proto.proto import schema

NET = """\
name: "tiny"
layer { name: "pair_data" type: "Data" top: "pair_data" top: "sim"
  data_param { source: "pairs" batch_size: 4 backend: LMDB } transform_param { scale: 0.01 } }
layer { name: "slice" type: "Slice" bottom: "pair_data" top: "data" top: "data_p" slice_param { slice_point: 1 } }
layer { name: "feat" type: "InnerProduct" bottom: "data" top: "feat"
  param { name: "w" lr_mult: 1 decay_mult: 1 } param { name: "b" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "feat_p" type: "InnerProduct" bottom: "data_p" top: "feat_p"
  param { name: "w" lr_mult: 1 decay_mult: 1 } param { name: "b" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "feat" bottom: "feat_p" bottom: "sim" top: "loss" }
"""
SOLVER = """\
net: "net.prototxt"
test_iter: 2
test_interval: 5
base_lr: 0.01
lr_policy: "step"
gamma: 0.1
stepsize: 4
max_iter: 5
display: 1
snapshot_prefix: "out/tiny"
solver_mode: CPU
random_seed: 3
"""
CHECK = ("check", "net.prototxt")
TRAIN = ("train", "--solver", "solver.prototxt")
TEST = ("test", "--model", "net.prototxt", "--weights", "weights.caffemodel")
SUMMARY = ("summary", "net.prototxt")
DRAW = ("draw", "net.prototxt", "net.svg")


def datum(number: int, height: int = 5) -> bytes:
    pixels = np.random.default_rng(number).integers(256, size=2 * height * 3, dtype=np.uint8).tobytes()
    return schema.Datum(channels=2, height=height, width=3, data=pixels, label=number % 2).SerializeToString()


def database(folder: Path, records: list[bytes], name: str = "pairs") -> None:
    with create_database(str(folder / name), "LMDB", overwrite=True) as writer:
        writer.put([(b"%08d" % number, record) for number, record in enumerate(records)])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without mistakes."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    (folder / "out").mkdir()
    database(folder, [datum(number) for number in range(9)])
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def net(old: str, new: str, count: int = 1) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        assert old in NET
        (folder / "net.prototxt").write_text(NET.replace(old, new, count))

    return edit


def solver(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        assert old in SOLVER
        (folder / "solver.prototxt").write_text(SOLVER.replace(old, new))

    return edit


def holds(content: bytes, name: str = "net.prototxt") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def records(*values: bytes) -> Callable[[Path], None]:
    return lambda folder: database(folder, list(values))


def last(old: str, new: str) -> Callable[[Path], None]:
    """Edit the second tower."""

    def edit(folder: Path) -> None:
        head, tail = NET.split('layer { name: "feat_p"')
        (folder / "net.prototxt").write_text(head + 'layer { name: "feat_p"' + tail.replace(old, new, 1))

    return edit


def unwritable(folder: Path) -> None:
    shutil.rmtree(folder / "out")


def trained_elsewhere(folder: Path) -> None:
    weights = schema.NetParameter(name="other")
    for name in ("conv1", "featt"):
        blob = schema.BlobProto(data=[0.5] * 6, shape=schema.BlobShape(dim=[2, 3]))
        weights.layer.add(name=name, type="InnerProduct", blobs=[blob])
    (folder / "weights.caffemodel").write_bytes(weights.SerializeToString())


def trained_wider(folder: Path) -> None:
    weights = schema.NetParameter(name="wider")
    layer = weights.layer.add(name="feat", type="InnerProduct")
    layer.blobs.add(data=[0.5] * 60, shape=schema.BlobShape(dim=[4, 15]))
    layer.blobs.add(data=[0.5] * 4, shape=schema.BlobShape(dim=[4]))
    (folder / "weights.caffemodel").write_bytes(weights.SerializeToString())


ROWS: list[tuple[Callable[[Path], None], tuple[str, ...], str]] = [
    # names
    (
        net("num_output", "num_outputs"),
        CHECK,
        "net.prototxt:7: error[unknown-field]: layer 'feat': unknown field 'num_outputs' in inner_product_param; did "
        "you mean 'num_output'?",
    ),
    (
        net("num_output", "num_outputs"),
        TRAIN,
        "net.prototxt:7: layer 'feat': unknown field 'num_outputs' in inner_product_param; did you mean 'num_output'?",
    ),
    (
        net('"Slice"', '"Slise"'),
        CHECK,
        "net.prototxt:4: error[unknown-layer]: layer 'slice': unknown layer type 'Slise'; did you mean 'Slice'?",
    ),
    (
        net('"Slice"', '"Slise"'),
        TRAIN,
        "net.prototxt:4: layer 'slice': unknown layer type 'Slise'; did you mean 'Slice'?",
    ),
    (
        net('bottom: "feat_p"', 'bottom: "feat_pp"'),
        CHECK,
        "net.prototxt:11: error[net]: layer 'loss': unknown bottom blob 'feat_pp' (index 1); did you mean 'feat_p'?",
    ),
    (
        net("backend: LMDB", "backend: LMBD"),
        CHECK,
        "net.prototxt:3: error[unknown-field]: layer 'pair_data': unknown value 'LMBD' of data_param.backend, expected "
        "one of LEVELDB, LMDB; did you mean 'LMDB'?",
    ),
    (
        net("backend: LMDB", "backend: LMBD"),
        TRAIN,
        "net.prototxt:3: layer 'pair_data': unknown value 'LMBD' of data_param.backend, expected one of "
        "LEVELDB, LMDB; did you mean 'LMDB'?",
    ),
    (
        net('type: "xavier"', 'type: "xaver"'),
        TRAIN,
        "net.prototxt:5: layer 'feat': unknown filler type 'xaver'; did you mean 'xavier'?",
    ),
    (
        net('top: "feat_p"', 'top: "feat"'),
        CHECK,
        "net.prototxt:8: error[net]: layer 'feat_p': top blob 'feat' is produced by more than one layer; only a "
        "layer that has it as bottom 0 too may change it in place\n"
        "net.prototxt:11: error[net]: layer 'loss': unknown bottom blob 'feat_p' (index 1); did you mean "
        "'feat'?",
    ),
    # text
    (net('top: "sim"\n', 'top: "sim" {\n'), CHECK, "net.prototxt:2: error[syntax]: expected a field name, got '{'"),
    (
        net("slice_param { slice_point: 1 } }", "slice_param { slice_point: 1 }"),
        CHECK,
        "net.prototxt:4: error[syntax]: the '{' of 'layer' is never closed; another 'layer' starts inside it at line 5",
    ),
    (
        net("num_output: 3", 'num_output: "3"'),
        CHECK,
        "net.prototxt:7: error[syntax]: layer 'feat': 'num_output': expected an integer, got \"3\"",
    ),
    (
        net("num_output: 3", "num_output: -3"),
        CHECK,
        "net.prototxt:7: error[syntax]: layer 'feat': 'num_output': expected an integer from 0 to 4294967295, got '-3'",
    ),
    (
        net("num_output: 3", "num_output: 3 num_output: 4"),
        CHECK,
        "net.prototxt:7: error[syntax]: layer 'feat': 'num_output': given twice, first in line 7; keep one value",
    ),
    (
        net('name: "tiny"', 'name: "tiny'),
        CHECK,
        'net.prototxt:1: error[syntax]: the string that starts with " does not end on its line; close the quote',
    ),
    (
        net("layer {", "<<<<<<< HEAD\nlayer {"),
        CHECK,
        "net.prototxt:2: error[syntax]: unresolved merge conflict (<<<<<<<); keep one side and "
        "delete the conflict markers",
    ),
    (
        net("layer {", "layers {"),
        CHECK,
        "net.prototxt:4: error[syntax]: 'layer' and 'layers' (line 2) cannot be mixed in a net; write "
        'every layer as layer { type: "..." }',
    ),
    (holds(b""), CHECK, "net.prototxt:1: error[syntax]: the file is empty, expected a net"),
    (
        holds(b"\x0a\x04tiny\x00\x01\x02"),
        CHECK,
        "net.prototxt:1: error[syntax]: expected a prototxt, got binary data (byte 0x04); is it a weights "
        "file (.caffemodel)?",
    ),
    (
        holds(b"\xef\xbb\xbf" + NET.encode().replace(b'"Slice"', b'"Slise"')),
        CHECK,
        "net.prototxt:4: error[unknown-layer]: layer 'slice': unknown layer type 'Slise'; did you mean 'Slice'?",
    ),
    (
        holds(NET.replace("\n", "\r\n").replace('"Slice"', '"Slise"').encode()),
        CHECK,
        "net.prototxt:4: error[unknown-layer]: layer 'slice': unknown layer type 'Slise'; did you mean 'Slice'?",
    ),
    (
        holds(NET.encode().replace(b'"tiny"', b'\xff"tiny"')),
        CHECK,
        "net.prototxt:1: error[syntax]: unexpected character '\xff', expected a value for 'name'",
    ),
    # what layers want
    (
        net('bottom: "sim" top', "top"),
        CHECK,
        "net.prototxt:11: error[net]: layer 'loss': ContrastiveLoss takes 3 bottoms, got 2: the label is missing",
    ),
    (
        net("num_output: 3 ", ""),
        CHECK,
        "net.prototxt:7: error[net]: layer 'feat': num_output is missing; give a number",
    ),
    (
        net("slice_point: 1", "slice_point: 2"),
        CHECK,
        "net.prototxt:4: error[net]: layer 'slice': slice_point 2 is not inside axis 1, which has size 2",
    ),
    # sharing
    (
        last("num_output: 3", "num_output: 4"),
        CHECK,
        "net.prototxt:9: error[net]: layer 'feat_p': cannot share param 'w' with its owner, layer 'feat': the "
        "owner's shape is (3, 15), this layer's is (4, 15)",
    ),
    (
        last("lr_mult: 1", "lr_mult: 2"),
        CHECK,
        "net.prototxt:9: error[net]: layer 'feat_p': shared param 'w' has lr_mult 2 here, but 1 at its owner, "
        "layer 'feat', or at an earlier user; they must be equal",
    ),
    (
        last("decay_mult: 1", "decay_mult: 0"),
        CHECK,
        "net.prototxt:9: error[net]: layer 'feat_p': shared param 'w' has decay_mult 0 here, but 1 at its "
        "owner, layer 'feat', or at an earlier user; they must be equal",
    ),
    # databases
    (
        lambda folder: shutil.rmtree(folder / "pairs"),
        TRAIN,
        "net.prototxt:3: layer 'pair_data': database 'pairs' is not there in the working directory; make "
        "it with 'siamese-proto data'",
    ),
    (records(), TRAIN, "net.prototxt:3: layer 'pair_data': database 'pairs' has no records; make it again"),
    (
        records(datum(0), datum(1), datum(2, height=4)),
        TRAIN,
        "net.prototxt:2: layer 'pair_data': record '00000002' of database 'pairs' has size 2 x 4 x 3, but "
        "the first one has 2 x 5 x 3 (channels x height x width); all must have one size, at least that of "
        "the crop where there is one",
    ),
    (
        records(datum(0), datum(1)[:-7], datum(2)),
        TRAIN,
        "net.prototxt:2: layer 'pair_data': record '00000001' cannot be used: its 33 bytes are not a Datum "
        "message; make the database again",
    ),
    (
        records(datum(0), b"\xff\xff\xff\xff", datum(2)),
        TRAIN,
        "net.prototxt:2: layer 'pair_data': record '00000001' cannot be used: its 4 bytes are not a Datum "
        "message; make the database again",
    ),
    (
        net(" backend: LMDB", ""),
        TRAIN,
        "net.prototxt:3: layer 'pair_data': database 'pairs' is of kind LMDB, not LEVELDB (the default of "
        "'backend'); write 'backend: LMDB' in data_param",
    ),
    # weights
    (
        trained_elsewhere,
        TEST,
        "weights.caffemodel: belongs to another net: its layers 'conv1', 'featt' are not in 'tiny', whose "
        "layers with parameters are 'feat', 'feat_p'; did you mean 'feat'?",
    ),
    (
        trained_wider,
        TEST,
        "weights.caffemodel: layer 'feat': blob 0 (weight) has shape (4, 15) in the file, but (3, 15) in "
        "the net 'tiny'; to fine-tune, rename the "
        "layer in the net, or skip it with --skip-mismatched (skip_mismatched=True)",
    ),
    (
        holds(b"nothing of the kind", "weights.caffemodel"),
        TEST,
        "weights.caffemodel: is not a weights file: it looks like a text file",
    ),
    (lambda folder: None, TEST, "weights.caffemodel: cannot be read: No such file or directory"),
    # solvers
    (
        solver("base_lr: 0.01\n", ""),
        TRAIN,
        "solver.prototxt:1: base_lr is missing: the learning rate to begin with, for example base_lr: 0.01",
    ),
    (
        solver('lr_policy: "step"\n', ""),
        TRAIN,
        "solver.prototxt:1: lr_policy is missing; it is one of fixed, step, exp, inv, multistep, poly, sigmoid, cosine",
    ),
    (
        solver('"step"', '"stepp"'),
        TRAIN,
        "solver.prototxt:5: unknown lr_policy 'stepp'; it is one of fixed, step, exp, inv, multistep, "
        "poly, sigmoid, cosine; did you mean 'step'?",
    ),
    (solver("stepsize: 4\n", ""), TRAIN, "solver.prototxt:5: lr_policy 'step' needs stepsize, which is missing"),
    (
        solver("max_iter: 5\n", ""),
        TRAIN,
        "solver.prototxt:1: max_iter is missing: the number of iterations to train for",
    ),
    (solver("max_iter", "max_itr"), TRAIN, "solver.prototxt:8: unknown field 'max_itr'; did you mean 'max_iter'?"),
    (
        solver('net: "net', 'train_net: "net'),
        TRAIN,
        "solver.prototxt:2: test_iter number 1 has no test net; name one with test_net",
    ),
    (
        solver("test_interval: 5\n", ""),
        TRAIN,
        "solver.prototxt:2: test_iter without test_interval: after how many iterations to test, for "
        "example test_interval: 500",
    ),
    (
        solver('net: "net.prototxt"\n', ""),
        TRAIN,
        'solver.prototxt:1: no net to train; name one, for example net: "train_test.prototxt"',
    ),
    (
        solver('net: "net.prototxt"', 'net: "nett.prototxt"'),
        TRAIN,
        "solver.prototxt:1: net file 'nett.prototxt' not found in the working directory",
    ),
    (
        unwritable,
        TRAIN,
        "the folder for snapshots, 'out', does not exist; create the folder, or give another "
        "snapshot_prefix than 'out/tiny'",
    ),
    (
        solver("base_lr: 0.01", "base_lr: 1e30"),
        TRAIN,
        "the loss of iteration 1 is inf; the first layer whose output is not finite is 'loss' "
        "(net.prototxt:11); a lower base_lr or clip_gradients may help",
    ),
    # other commands
    (
        lambda folder: None,
        ("summary", "solver.prototxt"),
        "solver.prototxt:1: expected a net, got a solver file; pass the net that it names",
    ),
    (
        lambda folder: None,
        ("train", "--solver", "net.prototxt"),
        'net.prototxt:1: expected a solver file, got a net; pass a solver file with the line net: "FILE"',
    ),
    (
        lambda folder: None,
        ("draw", "net.prototxt", "nowhere/net.svg"),
        "cannot write 'nowhere/net.svg': there is no folder 'nowhere'",
    ),
    (
        lambda folder: None,
        ("draw", "net.prototxt", "net.jpg"),
        "cannot draw to 'net.jpg': its name must end in one of .svg, .png, .pdf, .dot, .html",
    ),
    (
        lambda folder: None,
        (*SUMMARY, "--shape", "pair_dat=4,2,5,3"),
        "a shape is given for 'pair_dat', which is no blob of the net; did you mean 'pair_data'?",
    ),
    (lambda folder: None, ("summary", "nett.prototxt"), "nett.prototxt: no such file; did you mean 'net.prototxt'?"),
    (
        net('"Slice"', '"Slise"'),
        ("upgrade", "solver.prototxt", "nowhere/solver.prototxt"),
        "cannot write 'nowhere/solver.prototxt': there is no folder 'nowhere'",
    ),
]


@pytest.mark.parametrize(("spoil", "command", "message"), ROWS, ids=[row[2][:60] for row in ROWS])
def test_every_mistake_is_reported_in_one_line(
    spoil: Callable[[Path], object], command: tuple[str, ...], message: str, folder: Path
) -> None:
    spoil(folder)
    before = sorted(path for path in folder.rglob("*") if path.parent.name != "pairs")
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    # Log lines from before the mistake are above it.
    lines = problem_lines(done.stdout) if command == CHECK else problem_lines(done.stderr)[-1:]
    assert lines == message.splitlines()
    assert "Traceback" not in done.stderr
    assert sorted(path for path in folder.rglob("*") if path.parent.name != "pairs") == before


def test_the_folder_without_mistakes_trains(folder: Path) -> None:
    assert CliRunner().invoke(main, CHECK).stdout == "net.prototxt: no problems\n"
    assert CliRunner().invoke(main, TRAIN).exit_code == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "tiny_iter_5.caffemodel",
        "tiny_iter_5.solverstate",
    ]


def test_the_nearest_of_thousands_of_names_is_found_wherever_a_letter_is_wrong() -> None:
    names = [f"Res{stage}_branch{branch}_conv" for stage in range(500) for branch in range(6)]
    assert did_you_mean("res123_branch4_conv", names) == "; did you mean 'Res123_branch4_conv'?"
    for wrong in ("es123_branch4_conv", "Rse123_branch4_conv", "Res123_bramch4_conv", "Res123_branch4_cnv"):
        assert did_you_mean(wrong, names) == "; did you mean 'Res123_branch4_conv'?"
    assert did_you_mean("fc", names) == ""
