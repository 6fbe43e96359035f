"""A net on its way through the upgrades."""

from __future__ import annotations

from dataclasses import dataclass, field

from siamese_proto.proto import schema
from siamese_proto.proto.parsed import Source


@dataclass
class Draft:
    """The message as far as it has come, the places of its layers, and notes on what was changed."""

    message: schema.NetParameter
    source: Source  # of the net itself
    layers: list[Source]  # one for each of message.layer
    old_layers: list[Source]  # one for each of message.layers
    notes: list[str] = field(default_factory=list)
