"""Solver states of Caffe are read and written again, in both formats."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from weight_nets import GOLDEN, bits

from siamese_proto.errors import WeightsError
from siamese_proto.proto import schema
from siamese_proto.weights import StoredState, find_weights, read_state, write_state

STATES = [*sorted(GOLDEN.glob("*/*/snap_iter_20.solverstate")), GOLDEN / "flagship" / "snap_iter_100.solverstate"]
RESUME = schema.ResumeState(
    random_seed=-3, data=[schema.DataPosition(layer="pairs/left", batches=7)], recent_loss=[0.5, 0.25]
)


def test_golden_states_exist() -> None:
    assert len(STATES) == 14


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.parent.name)
def test_a_state_of_caffe_is_written_again_byte_for_byte(path: Path, tmp_path: Path) -> None:
    write_state(tmp_path / "ours.solverstate", read_state(path))
    assert (tmp_path / "ours.solverstate").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.parent.name)
def test_a_state_of_caffe_is_read_as_protobuf_reads_it(path: Path) -> None:
    message = schema.SolverState.FromString(path.read_bytes())
    state = read_state(path)
    assert (state.iteration, state.learned_net, state.current_step, state.resume) == (
        message.iter,
        message.learned_net,
        message.current_step,
        None,
    )
    for ours, caffes in zip(state.history, message.history, strict=True):
        assert bits(ours) == (tuple(caffes.shape.dim), np.array(caffes.data, np.float32).tobytes())


@pytest.mark.parametrize("name", ["adam", "sgd_fixed"])
def test_both_formats_of_caffe_hold_the_same_state(name: str) -> None:
    binary = read_state(GOLDEN / "solver" / name / "snap_iter_20.solverstate")
    hdf5 = read_state(GOLDEN / "solver" / name / "snap_iter_20.solverstate.h5")
    assert (hdf5.iteration, hdf5.current_step) == (binary.iteration, binary.current_step)
    assert hdf5.learned_net == f"{binary.learned_net}.h5"
    assert [bits(array) for array in hdf5.history] == [bits(array) for array in binary.history]


@pytest.mark.parametrize("suffix", [".solverstate", ".solverstate.h5"])
@pytest.mark.parametrize("resume", [None, RESUME], ids=["as Caffe", "with our own"])
def test_a_file_is_read_back_bit_for_bit(suffix: str, resume: schema.ResumeState | None, tmp_path: Path) -> None:
    # Twelve arrays: in alphabetical order 10 would come before 2.
    history = tuple(np.random.default_rng(i).standard_normal((i + 1, 3)).astype(np.float32) for i in range(12))
    state = StoredState(1234, "snaps/ö_iter_1234.caffemodel", 5, history, resume)
    write_state(tmp_path / f"s{suffix}", state)
    back = read_state(tmp_path / f"s{suffix}")
    assert (back.iteration, back.learned_net, back.current_step, back.resume) == (1234, state.learned_net, 5, resume)
    assert [bits(array) for array in back.history] == [bits(array) for array in history]


def test_hdf5_has_the_types_and_shapes_that_caffe_writes(tmp_path: Path) -> None:
    def listing(path: Path) -> dict[str, object]:
        items: dict[str, object] = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: items.update({name: (item.shape, item.dtype.str)} if hasattr(item, "shape") else {})
            )
        return items

    caffes = GOLDEN / "solver" / "adam" / "snap_iter_20.solverstate.h5"
    write_state(tmp_path / "ours.h5", read_state(caffes))
    assert listing(tmp_path / "ours.h5") == listing(caffes)


def test_weights_are_found_as_written_or_next_to_the_state(tmp_path: Path) -> None:
    state, sibling = tmp_path / "s.solverstate", tmp_path / "w.caffemodel"
    sibling.touch()
    assert find_weights(state, "gone/w.caffemodel") == str(sibling)
    assert find_weights(state, r"C:\gone\w.caffemodel") == str(sibling)
    (tmp_path / "as").mkdir()
    written = tmp_path / "as" / "w.caffemodel"
    written.touch()
    assert find_weights(state, str(written)) == str(written)


@pytest.mark.parametrize(
    ("learned_net", "message"),
    [
        (
            "gone/w.caffemodel",
            "{}: its weights file does not exist: looked for gone/w.caffemodel and {folder}/w.caffemodel",
        ),
        ("", "{}: names no weights file; give one with --weights"),
    ],
)
def test_missing_weights_are_an_error(learned_net: str, message: str, tmp_path: Path) -> None:
    state = tmp_path / "s.solverstate"
    with pytest.raises(WeightsError) as raised:
        find_weights(state, learned_net)
    assert str(raised.value) == message.format(state, folder=tmp_path)
