"""Draw a net, as Caffe's tool does: draw_net.py IN OUT [--rankdir LR] [--phase ALL] [--display_lrm]."""

from __future__ import annotations

from pathlib import Path

import click

from siamese_proto.cli.group import OneLineProblems
from siamese_proto.compiler import build_graph
from siamese_proto.export.drawing import RankDir, check_output, draw, render
from siamese_proto.proto.reader import parse_net


@click.command(cls=OneLineProblems)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--rankdir", type=click.Choice(["LR", "TB", "BT", "RL"]), default="LR", show_default=True)
@click.option("--phase", type=click.Choice(["TRAIN", "TEST", "ALL"]), default="ALL", show_default=True)
@click.option("--display_lrm", is_flag=True, help="Show the multipliers of learning rates.")
def main(source: Path, target: Path, rankdir: RankDir, phase: str, display_lrm: bool) -> None:
    """Draw the net in IN to OUT, a .svg, .png, .pdf or .dot file."""
    check_output(target)
    parsed = parse_net(source)
    graph = build_graph(parsed, "TEST" if phase == "TEST" else "TRAIN")
    test = build_graph(parsed, "TEST") if phase == "ALL" else None
    render(draw(graph, rankdir=rankdir, test=test, learning_rates=display_lrm), target)


if __name__ == "__main__":
    main()
