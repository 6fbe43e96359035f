"""Weights files at the start of runs, and the report about each."""

import logging
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from small_twin import NET

from siamese_proto.cli import main
from siamese_proto.net.net import Net
from siamese_proto.solver import Solver
from siamese_proto.solver.log import Event

TOWER = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 784 } } }
layer { name: "hidden_p" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } bias_filler { value: 0.5 } } }
layer { name: "head" type: "InnerProduct" bottom: "hidden" top: "head" inner_product_param { num_output: 4 } }
"""


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "event", None) == Event.WEIGHTS_LOADED]


def test_weights_of_one_tower_are_loaded_into_all_towers_that_share_them(
    write_run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    Net(TOWER).save_weights(write_run().with_name("tower.caffemodel"))
    solver = Solver("solver.prototxt", weights="tower.caffemodel")
    tower = Net(TOWER, weights="tower.caffemodel")
    for layer in ("hidden", "hidden_p"):
        for mine, theirs in zip(solver.net.params[layer], tower.params["hidden_p"], strict=True):
            assert torch.equal(mine, theirs)
    assert reports(caplog) == [
        "tower.caffemodel: 1 layer loaded\n  not in the file, unchanged: 'feat', 'feat_p'\n"
        "  not in the net, ignored: 'head'"
    ]
    assert solver.test_nets[0].params["hidden"][0] is solver.net.params["hidden_p"][0]
    solver.close()


@pytest.mark.parametrize("way", ["solver file", "commas", "argument"])
def test_several_files_are_loaded_in_order(write_run, caplog: pytest.LogCaptureFixture, way: str) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    path = write_run()
    whole = Net("net.prototxt", "TRAIN", seed=1)
    whole.save_weights("whole.caffemodel")
    whole.close()
    Net(TOWER, seed=2).save_weights("tower.caffemodel")
    if way == "commas":
        path = write_run(weights='"whole.caffemodel,tower.caffemodel"')
    elif way == "solver file":
        path.write_text(path.read_text() + 'weights: "whole.caffemodel" weights: "tower.caffemodel"')
    solver = Solver(path, weights=["whole.caffemodel", "tower.caffemodel"] if way == "argument" else None)
    assert torch.equal(solver.net.params["hidden"][0], Net(TOWER, weights="tower.caffemodel").params["hidden_p"][0])
    assert torch.equal(solver.net.params["feat"][0], whole.params["feat"][0])
    first, second = reports(caplog)
    assert first == "whole.caffemodel: 4 layers loaded\n  4 shared parameters stored more than once, all copies equal"
    assert second.startswith("tower.caffemodel: 1 layer loaded\n")
    solver.close()


def test_copies_that_differ_are_reported_and_the_last_is_used(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    apart = NET.replace('param { name: "fw" } param { name: "fb" }', "")
    write_run(apart)
    net = Net("net.prototxt", "TRAIN")
    with torch.no_grad():
        net.params["feat_p"][0].copy_(net.params["feat"][0] + 0.25)
        net.params["feat_p"][1].copy_(net.params["feat"][1])
    net.save_weights("apart.caffemodel")
    Path("net.prototxt").write_text(NET)
    solver = Solver("solver.prototxt", weights="apart.caffemodel")
    assert torch.equal(solver.net.params["feat"][0], net.params["feat_p"][0])
    (report,) = reports(caplog)
    assert report.splitlines()[1:] == [
        "  3 shared parameters stored more than once, all copies equal",
        "  fw: the copies differ by up to 0.25; that of 'feat_p' was used, not that of 'feat'",
    ]
    solver.close()


LINE = """
layer { name: "in" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 5 dim: 3 } shape { dim: 5 dim: 4 } data_filler { type: "constant" value: 1 } } }
layer { name: "body" type: "InnerProduct" bottom: "x" top: "body" param { lr_mult: 0 } param { lr_mult: 0 }
  inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
layer { name: "head" type: "InnerProduct" bottom: "body" top: "head" param { lr_mult: 0 } param { lr_mult: 0 }
  inner_product_param { num_output: 4 bias_filler { value: 0.25 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "head" bottom: "y" top: "loss" }
"""
SKIPPED = (
    "w.caffemodel: 1 layer loaded\n  skipped, unchanged: layer 'head': blob 0 (weight) has shape (6, 7) in the "
    "file, but (4, 7) in the net 'net.prototxt'"
)


def test_skip_mismatched_skips_a_head_of_another_size(in_tmp: Path) -> None:
    other = LINE.replace("num_output: 4", "num_output: 6").replace("dim: 5 dim: 4", "dim: 5 dim: 6")
    trained = Net(other, seed=3)
    trained.save_weights("w.caffemodel")
    Path("net.prototxt").write_text(LINE)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "snap"'
    )
    train = ["train", "--solver", "solver.prototxt"]
    test = ["test", "--model", "net.prototxt", "--iterations", "1"]
    for command in (train, test):
        arguments = [*command, "--weights", "w.caffemodel"]
        refused = CliRunner().invoke(main, arguments)
        assert refused.exit_code == 1
        assert refused.stderr.splitlines()[-1].endswith("or skip it with --skip-mismatched (skip_mismatched=True)")
        done = CliRunner().invoke(main, [*arguments, "--skip-mismatched"])
        assert done.exit_code == 0, done.output
        assert SKIPPED in done.stderr
    tuned = Net(LINE, weights="snap_iter_1.caffemodel")
    for mine, theirs in zip(tuned.params["body"], trained.params["body"], strict=True):
        assert torch.equal(mine, theirs)
    assert [blob.unique().tolist() for blob in tuned.params["head"]] == [[0.0], [0.25]]


def test_a_snapshot_and_skip_mismatched_exclude_each_other() -> None:
    arguments = ["train", "--solver", "s", "--snapshot", "x.solverstate", "--skip-mismatched"]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        2,
        "Error: --skip-mismatched needs --weights: a snapshot belongs to one net.",
    )
