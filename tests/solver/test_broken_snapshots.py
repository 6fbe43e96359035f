"""Snapshots that cannot be written or read: each gives one clear error, and the run continues."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from solver_runs import assert_same, tensors

from siamese_proto.errors import NetError
from siamese_proto.solver import Solver
from siamese_proto.weights import StoredState, read_state, write_state

FULL_DISK = """
import resource, sys
from siamese_proto.solver import Solver
solver = Solver("solver.prototxt")
def fill(solver):
    if solver.iteration in (3, 7):
        size = 2000 if solver.iteration == 3 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
solver.callbacks.append(fill)
solver.solve()
solver.close()
print(solver.iteration)
"""


@pytest.mark.slow
@pytest.mark.parametrize("snapshot_format", ["BINARYPROTO", "HDF5"])
def test_a_run_continues_after_a_full_disk(write_run, snapshot_format: str) -> None:
    write_run(snapshot=2, max_iter=10, display=0, test_iter=None, test_interval=None, snapshot_format=snapshot_format)
    done = subprocess.run([sys.executable, "-c", FULL_DISK], capture_output=True, text=True, check=True)
    assert done.stdout == "10\n"
    suffix = ".h5" if snapshot_format == "HDF5" else ""
    failed = [line for line in done.stderr.splitlines() if line.startswith("SNAPSHOT FAILED")]
    assert len(failed) == 2
    assert failed[0].startswith(
        f"SNAPSHOT FAILED, training continues without it: snap_iter_4.caffemodel{suffix}: cannot be written: "
    )
    states = sorted(Path().glob("snap_iter_*"))
    assert [path.name for path in states] == sorted(
        f"snap_iter_{iteration}.{kind}{suffix}" for iteration in (2, 8, 10) for kind in ("caffemodel", "solverstate")
    )
    assert not list(Path().glob(".snap*"))
    resumed = Solver("solver.prototxt", snapshot=f"snap_iter_2.solverstate{suffix}")
    assert resumed.iteration == 2
    resumed.close()


def test_the_limit_of_the_full_disk_is_real() -> None:
    """Python ignores the signal of the file-size limit, and writes fail as on a full disk."""
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def broken(name: str) -> None:
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[: len(content) // 2])


def other_net() -> None:
    """Add an output to the last layer: another net."""
    net = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text(net.replace("num_output: 3", "num_output: 4"))


def one_layer_more() -> None:
    net = Path("net.prototxt").read_text()
    top = 'layer { name: "top" type: "InnerProduct" bottom: "feat" top: "top" inner_product_param { num_output: 2 } }'
    Path("net.prototxt").write_text(net + top)


def rule(kind: str) -> None:
    solver = Path("solver.prototxt").read_text()
    Path("solver.prototxt").write_text(f'{solver}\ntype: "{kind}"')


def of_caffe() -> None:
    state = read_state("snap_iter_4.solverstate")
    history = tuple(array.copy() for array in state.history)
    write_state("snap_iter_4.solverstate", StoredState(4, state.learned_net, state.current_step, history))


CASES = {
    "state cut in half": (
        lambda: broken("snap_iter_4.solverstate"),
        "snap_iter_4.solverstate: is not a solver state (byte 26 begins a field of 18827 bytes, but only",
    ),
    "weights cut in half": (
        lambda: broken("snap_iter_4.caffemodel"),
        "snap_iter_4.caffemodel: is damaged or cut off (byte",
    ),
    "another net": (
        other_net,
        "snap_iter_4.solverstate: history 2 of the solver state has shape (3, 6), but its parameter in this net has "
        "shape (4, 6); it was written for another net",
    ),
    "a net with a layer more": (
        one_layer_more,
        "snap_iter_4.solverstate: the solver state holds 4 histories, but SGD over this net has 6; it was written for "
        "another net or by another update rule",
    ),
    "another rule": (
        lambda: rule("Nesterov"),
        "snap_iter_4.solverstate: was written by the update rule SGD, but the solver has type: 'Nesterov'; to "
        "continue with its weights alone, give them to --weights: snap_iter_4.caffemodel",
    ),
    "another rule, by Caffe": (
        lambda: (of_caffe(), rule("Adam")),
        "snap_iter_4.solverstate: the solver state holds 4 histories, but Adam over this net has 8; it was written for "
        "another net or by another update rule",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_snapshot_is_one_error_line_and_the_earlier_one_still_works(write_run, case: str) -> None:
    solver = Solver(write_run(snapshot=2))
    solver.step(4)
    solver.close()
    files = {name: Path(name).read_bytes() for name in ("solver.prototxt", "net.prototxt")}
    spoil, message = CASES[case]
    spoil()
    with pytest.raises(NetError) as caught:
        Solver("solver.prototxt", snapshot="snap_iter_4.solverstate")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    for name, content in files.items():
        Path(name).write_bytes(content)
    earlier = Solver("solver.prototxt", snapshot="snap_iter_2.solverstate")
    earlier.step(2)
    assert_same(tensors(earlier), tensors(solver))
    earlier.close()


def test_auto_refuses_a_snapshot_of_another_net(write_run) -> None:
    solver = Solver(write_run(snapshot=2))
    solver.step(4)
    solver.close()
    other_net()
    with pytest.raises(NetError, match="it was written for another net"):
        Solver("solver.prototxt", snapshot="auto")


def test_weights_without_a_layer_of_the_net_are_refused(write_run) -> None:
    solver = Solver(write_run(snapshot=2))
    solver.step(2)
    solver.close()
    state = read_state("snap_iter_2.solverstate")
    net = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text(net.replace('"feat"', '"feature"').replace('"feat_p"', '"feature_p"'))
    with pytest.raises(NetError) as caught:
        Solver("solver.prototxt", snapshot="snap_iter_2.solverstate")
    assert str(caught.value) == (
        "snap_iter_2.solverstate: its weights, snap_iter_2.caffemodel, have nothing for 'feature', 'feature_p'; it was "
        "written for another net"
    )
    assert len(state.history) == 4
