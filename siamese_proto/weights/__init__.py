"""Trained parameters in files: `.caffemodel`, `.caffemodel.h5`, `.safetensors`, `.pt`, and solver states."""

from siamese_proto.weights.formats import read_weights, write_stored, write_weights
from siamese_proto.weights.match import LoadReport, WrittenTwice, match_weights
from siamese_proto.weights.solverstate import StoredState, find_weights, read_state, write_state
from siamese_proto.weights.stored import StoredLayer, StoredWeights

__all__ = [
    "LoadReport",
    "StoredLayer",
    "StoredState",
    "StoredWeights",
    "WrittenTwice",
    "find_weights",
    "match_weights",
    "read_state",
    "read_weights",
    "write_state",
    "write_stored",
    "write_weights",
]
