"""Where a finding about a layer points to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from siamese_proto.errors import Location, quoted
from siamese_proto.graph.ir import Finding, Node

Place: TypeAlias = Callable[[Node, str], Location]
"""Where a field of a layer stands, by its path (`param[1].name`)."""


def of_the_layer(node: Node, path: str) -> Location:
    """The place of the layer itself, where nothing is known of its fields."""
    return node.location


def warning(node: Node, location: Location, code: str, text: str) -> Finding:
    """A warning about a layer."""
    return Finding(location, "warning", code, f"layer {quoted(node.name)}: {text}")
