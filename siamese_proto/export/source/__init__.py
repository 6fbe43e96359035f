"""Write a graph as readable PyTorch source."""

from siamese_proto.export.source.module import Ported, emit, port

__all__ = ["Ported", "emit", "port"]
