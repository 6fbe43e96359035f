"""Solver states: the state of a run and the history of its update rule (sgd_solver.cpp: SnapshotSolverState...)."""

from __future__ import annotations

import ntpath
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from siamese_proto.proto import schema
from siamese_proto.weights.blobs import Array, blob_pieces, read_blob
from siamese_proto.weights.caffemodel import as_text
from siamese_proto.weights.files import DAMAGED, Path, looks_like, map_file, new_file, weights_error
from siamese_proto.weights.hdf5 import find_in, new_hdf5, read_bytes, read_dataset
from siamese_proto.weights.wire import LENGTH, WireError, delimited, fields

if TYPE_CHECKING:
    import h5py

_HISTORY = 3
_MAX_SETTINGS = 1 << 20  # bytes besides the history
_RESUME = "siamese_proto_resume"  # our HDF5 dataset: the bytes of a ResumeState


@dataclass(frozen=True)
class StoredState:
    """A solver state.

    Attributes:
        iteration: The number of updates so far.
        learned_net: The weights file, as it was named when it was written; "" if there was none.
        current_step: The number of steps of the learning-rate policy so far.
        history: The history of the update rule, in the order of the net's parameters, once for each of the rule's
            buffers (Adam: all first moments, then all second). The arrays may be views of the mapped file: copy them,
            do not change them.
        resume: What Caffe does not store; None in Caffe's own files.
    """

    iteration: int
    learned_net: str
    current_step: int
    history: tuple[Array, ...]
    resume: schema.ResumeState | None = None


def read_state(path: Path) -> StoredState:
    """Read a `.solverstate` or `.solverstate.h5` file; the first bytes say which. Raises WeightsError."""
    file = os.fspath(path)
    data = map_file(path)
    kind = looks_like(data[:512])
    if kind:
        raise weights_error(file, f"is not a solver state: it looks like {kind}")
    if data[:4] == b"\x89HDF":
        return _read_hdf5(file)
    if file.lower().endswith(".h5"):
        raise weights_error(file, "is not an HDF5 file")
    settings: list[bytes] = []
    history: list[Array] = []
    try:
        for field in fields(data, 0, len(data)):
            if field.number == _HISTORY and field.kind == LENGTH:
                history.append(read_blob(data, field.value, field.end))
            elif field.end - field.start > _MAX_SETTINGS:
                raise WireError(f"field {field.number} has {field.end - field.start} bytes")
            else:
                settings.append(data[field.start : field.end])
        state = schema.SolverState.FromString(b"".join(settings))
    except (WireError, DecodeError, UnicodeDecodeError) as error:  # the last by the pure-Python protobuf
        fault = f"entry {len(history)} of the history is damaged or cut off" if history else "is not a solver state"
        raise weights_error(file, f"{fault} ({error})") from error
    if not state.HasField("iter"):
        hint = "; give a .caffemodel to --weights, not to --snapshot" if "caffemodel" in os.path.basename(file) else ""
        raise weights_error(file, f"is not a solver state: it has no iteration{hint}")
    resume = state.resume if state.HasField("resume") else None
    return StoredState(state.iter, as_text(state.learned_net), state.current_step, tuple(history), resume)


def _read_hdf5(file: str) -> StoredState:
    import h5py

    try:
        with h5py.File(file, "r") as root:
            names = ("iter", "history", "learned_net", "current_step", _RESUME)
            parts: dict[str, Any] = {name: find_in(file, root, name) for name in names}
            for name, kind in (("iter", h5py.Dataset), ("history", h5py.Group)):
                if not isinstance(parts[name], kind):
                    raise weights_error(file, f"is an HDF5 file, but not a solver state: it has no /{name}")
            learned_net, resume = b"", None
            if parts["learned_net"] is not None:
                learned_net = read_bytes(file, parts["learned_net"], "learned_net").rstrip(b"\0")
            if parts[_RESUME] is not None:
                resume = schema.ResumeState.FromString(read_bytes(file, parts[_RESUME], "the state to resume from"))
            history = tuple(
                read_dataset(file, find_in(file, parts["history"], str(index)), f"entry {index} of the history")
                for index in range(len(parts["history"]))
            )
            step = parts["current_step"]
            current_step = 0 if step is None else _number(file, step, "current_step")
            iteration = _number(file, parts["iter"], "iter")
            return StoredState(iteration, as_text(learned_net), current_step, history, resume)
    except (*DAMAGED, DecodeError) as error:
        raise weights_error(file, f"is not a solver state, or is damaged or cut off ({error})") from error


def _number(file: str, dataset: h5py.Dataset, what: str) -> int:
    """A whole number, on its own or the first of several."""
    return int(np.ravel(read_dataset(file, dataset, what))[0])


def write_state(path: Path, state: StoredState) -> None:
    """Write a state, as HDF5 if the name ends with .h5, else as Caffe's binary file; replaces `path` atomically."""
    if os.fspath(path).lower().endswith(".h5"):
        _write_hdf5(path, state)
        return
    start = schema.SolverState(iter=state.iteration, learned_net=state.learned_net or None)
    end = schema.SolverState(current_step=state.current_step, resume=state.resume)
    with new_file(path) as file:
        file.write(start.SerializeToString())
        for array in state.history:
            file.writelines(delimited(_HISTORY, blob_pieces(array)))
        file.write(end.SerializeToString())


def _write_hdf5(path: Path, state: StoredState) -> None:
    with new_hdf5(path) as root:
        root.create_dataset("iter", data=np.array([state.iteration], "<i4"))
        # Caffe reads a text of a fixed size that ends with a zero.
        name = state.learned_net.encode()
        root.create_dataset("learned_net", data=np.array(name, f"S{len(name) + 1}"))
        root.create_dataset("current_step", data=np.array([state.current_step], "<i4"))
        group = root.create_group("history")
        for index, array in enumerate(state.history):
            group.create_dataset(str(index), data=array)
        if state.resume is not None:
            root.create_dataset(_RESUME, data=np.frombuffer(state.resume.SerializeToString(), np.uint8))


def find_weights(state_path: Path, learned_net: str) -> str:
    """Return the weights file that a solver state names: the path as written, or the file next to the solver state.

    Raises:
        WeightsError: Neither exists.
    """
    file = os.fspath(state_path)
    if not learned_net:
        raise weights_error(file, "names no weights file; give one with --weights")
    # ntpath splits at both kinds of slashes
    paths = dict.fromkeys((learned_net, os.path.join(os.path.dirname(file), ntpath.basename(learned_net))))
    for path in paths:
        if os.path.isfile(path):
            return path
    raise weights_error(file, f"its weights file does not exist: looked for {' and '.join(paths)}")
