"""Draw a net, as Caffe's tool does: draw_net.py IN OUT [--rankdir LR|TB|BT] [--phase TRAIN|TEST]."""

from __future__ import annotations

from pathlib import Path

import click

from siamese_proto.cli.group import OneLineProblems
from siamese_proto.compiler import load_graph
from siamese_proto.drawing import RankDir, check_output, draw, render
from siamese_proto.graph.ir import Phase


@click.command(cls=OneLineProblems)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--rankdir", type=click.Choice(["LR", "TB", "BT", "RL"]), default="LR", show_default=True)
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TRAIN", show_default=True)
def main(source: Path, target: Path, rankdir: RankDir, phase: Phase) -> None:
    """Draw the net in IN to OUT, a .svg, .png, .pdf or .dot file."""
    check_output(target)
    render(draw(load_graph(source, phase), rankdir=rankdir), target)


if __name__ == "__main__":
    main()
