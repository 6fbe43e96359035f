"""Draw a graph."""

from siamese_proto.export.drawing.figure import Detail, RankDir, StyleName, TowerLayout, blob_numbers, draw, drawn_graph
from siamese_proto.export.drawing.page import check_page, is_page, write_page
from siamese_proto.export.drawing.palette import STYLES
from siamese_proto.export.drawing.render import FORMATS, check_output, render, to_svg

__all__ = [
    "FORMATS",
    "STYLES",
    "Detail",
    "RankDir",
    "StyleName",
    "TowerLayout",
    "blob_numbers",
    "check_output",
    "check_page",
    "draw",
    "drawn_graph",
    "is_page",
    "render",
    "to_svg",
    "write_page",
]
