"""siamese-proto test: what a trained net puts out, averaged over batches."""

from __future__ import annotations

from pathlib import Path

import click

from siamese_proto.cli.caffe_flags import chosen_device, flag, logging_to, split, state_flags
from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import (
    NET,
    OUTPUT,
    RUN,
    bad_records,
    mismatched,
    net_argument,
    python_layers,
    user_layers,
)


@click.command(cls=Command)
@net_argument(type=str)
@section(
    NET,
    flag("weights", required=True, metavar="A,B", help="The weights files, copied by layer name."),
    state_flags,
    user_layers,
    python_layers,
)
@section(
    RUN,
    flag("iterations", type=click.IntRange(min=1), default=50, show_default=True, help="Batches to run."),
    click.option("--no-fuse", is_flag=True, help="Run every layer as it is written, twin branches one by one."),
)
@section(
    OUTPUT,
    click.option("--log", "log_file", metavar="FILE", help="Add the log lines to this file, with Caffe's prefix."),
)
@bad_records
@mismatched
def test(
    model: str,
    weights: str,
    iterations: int,
    level: int | None,
    stage: str | None,
    gpu: str | None,
    no_fuse: bool,
    log_file: str | None,
    allow_python_layers: bool,
    skip_bad_records: bool,
    skip_mismatched: bool,
) -> None:
    """Print each output of a net in phase TEST, batch by batch, and then their means."""
    from siamese_proto.data.bad_records import count_of
    from siamese_proto.net.net import Net
    from siamese_proto.proto.reader import parse_net
    from siamese_proto.solver.log import Event, log, number, output_lines
    from siamese_proto.solver.test_coverage import uneven_records
    from siamese_proto.solver.test_scores import Scores

    def print_and_log(event: Event, text: str) -> None:
        log(event, text)
        click.echo(text)

    device = chosen_device(gpu)
    with logging_to([], log_file):
        net = Net(
            parse_net(Path(model)),
            "TEST",
            level=level or 0,
            stages=split(stage),
            fuse=not no_fuse,
            allow_python_layers=allow_python_layers,
            skip_bad_records=skip_bad_records,
        )
        for path in split(weights):
            report = net.load_weights(path, skip_mismatched=skip_mismatched)
            log(Event.WEIGHTS_LOADED, str(report))
            if report.mismatched:
                click.echo(str(report), err=True)
        net.to(device)
        try:
            note = uneven_records(net.graph, iterations)
            if note:
                click.echo(f"note: {note}", err=True)
            print_and_log(Event.TEST_BATCHES, f"Running for {iterations} iterations.")
            scores = Scores(net)
            for batch in range(iterations):
                for line in output_lines(net.graph, scores.run_batch()):
                    print_and_log(Event.BATCH_OUTPUT, f"Batch {batch}, {line.partition(' (*')[0]}")
            print_and_log(Event.MEAN_LOSS, f"Loss: {number(scores.loss())}")
            for line in output_lines(net.graph, scores.means()):
                print_and_log(Event.MEAN_OUTPUT, line)
            left_out = count_of([net.run])
            if left_out is not None:
                print_and_log(Event.BAD_RECORDS, left_out)
        finally:
            net.close()
