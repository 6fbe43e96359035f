"""Solver states: where a run stands, and the history of its update rule (sgd_solver.cpp: SnapshotSolverState...)."""

from __future__ import annotations

import ntpath
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from siamese_proto.files import replacing
from siamese_proto.proto import schema
from siamese_proto.weights.blobs import Array, blob_pieces, length_of, read_blob
from siamese_proto.weights.caffemodel import as_text, map_file
from siamese_proto.weights.files import DAMAGED, Path, problem
from siamese_proto.weights.formats import seems
from siamese_proto.weights.hdf5 import find_in, new_hdf5, read_bytes, read_dataset
from siamese_proto.weights.wire import LENGTH, WireError, fields, tag, varint

if TYPE_CHECKING:
    import h5py

_HISTORY = 3
_MOST_SETTINGS = 1 << 20  # bytes besides the history
_RESUME = "siamese_proto_resume"  # an HDF5 dataset of our own: the bytes of a ResumeState


@dataclass(frozen=True)
class StoredState:
    """A solver state. The arrays of `history` may be views of the mapped file: copy them, do not change them.

    `history` is in the order of the net's parameters, once for each of the rule's buffers (Adam: all first moments,
    then all second). `learned_net` is the weights file as it was named when it was written, "" where there was none.
    `resume` is what Caffe does not store; None in Caffe's own files.
    """

    iteration: int
    learned_net: str
    current_step: int
    history: tuple[Array, ...]
    resume: schema.ResumeState | None = None


def read_state(path: Path) -> StoredState:
    """A `.solverstate` or `.solverstate.h5` file, told apart by its first bytes. Raises WeightsError."""
    file = os.fspath(path)
    data = map_file(path)
    hint = seems(data[:512])
    if hint:
        raise problem(file, f"is no solver state; it looks like {hint}")
    if data[:4] == b"\x89HDF":
        return _read_hdf5(file)
    if file.lower().endswith(".h5"):
        raise problem(file, "is no HDF5 file")
    settings: list[bytes] = []
    history: list[Array] = []
    try:
        for field in fields(data, 0, len(data)):
            if field.number == _HISTORY and field.kind == LENGTH:
                history.append(read_blob(data, field.value, field.end))
            elif field.end - field.start > _MOST_SETTINGS:
                raise WireError(f"field {field.number} has {field.end - field.start} bytes")
            else:
                settings.append(data[field.start : field.end])
        state = schema.SolverState.FromString(b"".join(settings))
    except (WireError, DecodeError, UnicodeDecodeError) as error:  # the last by the pure-Python protobuf
        guess = f"entry {len(history)} of the history is damaged or cut off" if history else "is no solver state"
        raise problem(file, f"{guess} ({error})") from error
    if not state.HasField("iter"):
        raise problem(file, "is no solver state: it says no iteration" + _maybe_weights(file))
    resume = state.resume if state.HasField("resume") else None
    return StoredState(state.iter, as_text(state.learned_net), state.current_step, tuple(history), resume)


def _maybe_weights(file: str) -> str:
    return "; a .caffemodel is given to --weights, not to --snapshot" if "caffemodel" in os.path.basename(file) else ""


def _read_hdf5(file: str) -> StoredState:
    import h5py

    try:
        with h5py.File(file, "r") as root:
            parts: dict[str, Any] = {
                key: find_in(file, root, key) for key in ("iter", "history", "learned_net", "current_step", _RESUME)
            }
            for key, kind in (("iter", h5py.Dataset), ("history", h5py.Group)):
                if not isinstance(parts[key], kind):
                    raise problem(file, f"is an HDF5 file, but no solver state: it has no /{key}")
            learned_net, resume = b"", None
            if parts["learned_net"] is not None:
                learned_net = read_bytes(file, parts["learned_net"], "learned_net").rstrip(b"\0")
            if parts[_RESUME] is not None:
                resume = schema.ResumeState.FromString(read_bytes(file, parts[_RESUME], "what it goes on from"))
            history = [
                read_dataset(file, find_in(file, parts["history"], str(index)), f"entry {index} of the history")
                for index in range(len(parts["history"]))
            ]
            step = parts["current_step"]
            return StoredState(
                iteration=_number(file, parts["iter"], "iter"),
                learned_net=as_text(learned_net),
                current_step=0 if step is None else _number(file, step, "current_step"),
                history=tuple(history),
                resume=resume,
            )
    except (*DAMAGED, DecodeError) as error:
        raise problem(file, f"is no solver state, or is damaged or cut off ({error})") from error


def _number(file: str, dataset: h5py.Dataset, what: str) -> int:
    """A whole number, on its own or the first of several."""
    return int(np.ravel(read_dataset(file, dataset, what))[0])


def write_state(path: Path, state: StoredState) -> None:
    """Write a state, as HDF5 where the name ends with .h5, else as Caffe's binary file; replaces `path` at once."""
    if os.fspath(path).lower().endswith(".h5"):
        _write_hdf5(path, state)
        return
    before = schema.SolverState(iter=state.iteration)
    if state.learned_net:
        before.learned_net = state.learned_net
    after = schema.SolverState(current_step=state.current_step)
    if state.resume is not None:
        after.resume.CopyFrom(state.resume)
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(before.SerializeToString())
        for array in state.history:
            pieces = blob_pieces(array)
            file.write(tag(_HISTORY, LENGTH) + varint(length_of(pieces)))
            file.writelines(pieces)
        file.write(after.SerializeToString())


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
    """The weights file that a solver state names: as it is written there, else beside the solver state.

    Raises WeightsError, which names the places that were looked at.
    """
    file = os.fspath(state_path)
    if not learned_net:
        raise problem(file, "names no weights file; give one with --weights")
    beside = os.path.join(os.path.dirname(file), ntpath.basename(learned_net))  # both kinds of slashes
    for place in (learned_net, beside):
        if os.path.isfile(place):
            return place
    places = [learned_net] if beside == learned_net else [learned_net, beside]
    raise problem(file, f"its weights file is not there: looked for {' and '.join(places)}")
