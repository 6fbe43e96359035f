"""Telling nets from solver settings, which have the same file names."""

from __future__ import annotations

import os
from typing import Literal

from siamese_proto.proto import schema
from siamese_proto.proto.load import load_text
from siamese_proto.proto.text import parse_tree

Kind = Literal["net", "solver"]


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """Whether a prototxt file holds a net or solver settings, by the fields it begins with at the top level.

    Raises ParseError where the file cannot be read or is no prototxt at all.
    """
    loaded = load_text(path)
    names = {node.name for node in parse_tree(loaded.text, loaded.file)}
    if names & {"layer", "layers"}:
        return "net"
    net = len(names & set(schema.NetParameter.DESCRIPTOR.fields_by_name))
    solver = len(names & set(schema.SolverParameter.DESCRIPTOR.fields_by_name))
    return "solver" if solver > net else "net"
