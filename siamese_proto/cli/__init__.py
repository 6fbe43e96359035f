"""The command line `siamese-proto`, with one file for each command."""

from importlib import metadata

import click

from siamese_proto.cli.group import MainGroup

# A command is imported only when it is called, because torch takes seconds to import. So its short help is here.
COMMANDS = {
    "new": "Start a project from one of the included networks.",
    "train": "Train a net with a solver file.",
    "test": "Print the outputs of a trained net on its test data.",
    "time": "Time a net, layer by layer and as a whole.",
    "draw": "Draw a net as SVG, PNG, PDF, DOT or HTML.",
    "check": "Check nets and solver files for problems.",
    "summary": "Print layers, shapes, parameters and multiply-adds.",
    "port": "Write a net as PyTorch source or as ONNX.",
    "evaluate": "Evaluate a trained twin on pairs and on classes.",
    "embed": "Compute the features of images, or plot them.",
    "compare": "Compare two images.",
    "search": "Find the images nearest to a given one.",
    "plot": "Plot a training log, an evaluation or features.",
    "data": "Create databases, and show what they hold.",
    "deploy": "Write the inference (deploy) net of a training net.",
    "convert": "Convert weights to another format, or a net to ONNX.",
    "inspect": "List the contents of a weights file or solver state.",
    "upgrade": "Upgrade nets, solver files and weights to the current format.",
}


@click.group(cls=MainGroup, commands_help=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("siamese-proto"), prog_name="siamese-proto")
def main() -> None:
    """Train, test, draw and check Caffe-style nets, in particular siamese ones."""
