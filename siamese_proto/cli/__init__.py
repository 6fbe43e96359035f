"""The command siamese-proto: one small file a command."""

from __future__ import annotations

from importlib import metadata

import click

from siamese_proto.cli.group import MainGroup

# torch takes seconds to load, so a command is imported when it is called, and its help in the list stands here
COMMANDS = {
    "new": "Start a project from one of the networks that come along.",
    "train": "Train a net as a solver file says.",
    "test": "Score a net with given weights.",
    "time": "Time a net, layer by layer and as a whole.",
    "draw": "Draw a net as SVG, PNG, PDF, DOT or a page.",
    "check": "Report every problem of nets and solver files.",
    "summary": "Tell layers, shapes, parameters and multiply-adds.",
    "port": "Write a net as readable PyTorch source, or as ONNX.",
    "evaluate": "Judge a trained twin on pairs and on classes.",
    "embed": "Compute the features of images, or draw them.",
    "compare": "Tell how alike two images are.",
    "search": "Find the images nearest to one.",
    "plot": "Draw a training log, a judgement or features.",
    "data": "Make databases, and look inside them.",
    "deploy": "Make the net to use of the net that trains.",
    "convert": "Bring weights to another format, nets to ONNX.",
    "inspect": "List what a weights file or solver state holds.",
    "upgrade": "Bring nets, solver files and weights to today's dialect.",
}


@click.group(cls=MainGroup, commands_help=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("siamese-proto"), prog_name="siamese-proto")
def main() -> None:
    """Train, test, draw and check Caffe-style nets, siamese ones above all."""
