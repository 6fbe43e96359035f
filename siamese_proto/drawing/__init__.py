"""Back end 2: a graph as a drawing."""

from __future__ import annotations

from siamese_proto.drawing.figure import RankDir, draw
from siamese_proto.drawing.render import FORMATS, check_output, render

__all__ = ["FORMATS", "RankDir", "check_output", "draw", "render"]
