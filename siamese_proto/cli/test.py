"""siamese-proto test: the outputs of a trained net, averaged over batches."""

from pathlib import Path
from typing import Any

import click

from siamese_proto.cli.caffe_flags import chosen_device, flag, logging_to, split, state_flags
from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import (
    NET,
    POSITIVE,
    RUN,
    bad_records,
    log_file,
    mismatched,
    net_argument,
    no_fuse,
    python_layers,
    user_layers,
)


@click.command(cls=Command)
@net_argument()
@section(
    NET,
    flag("weights", required=True, metavar="A,B", help="Weights files, loaded by layer name."),
    state_flags,
    user_layers,
    python_layers,
)
@section(RUN, flag("iterations", type=POSITIVE, default=50, show_default=True, help="Number of batches."))
@no_fuse
@log_file
@bad_records
@mismatched
def test(
    model: Path,
    weights: str,
    iterations: int,
    level: int | None,
    stage: str | None,
    gpu: str | None,
    log_file: str | None,
    skip_mismatched: bool,
    **options: Any,  # of Net: fuse, allow_python_layers, skip_bad_records
) -> None:
    """Print the outputs of a net in phase TEST for each batch, and then their means."""
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
        net = Net(parse_net(model), "TEST", level=level or 0, stages=split(stage), **options)
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
            bad_records = count_of([net.run_state])
            if bad_records is not None:
                print_and_log(Event.BAD_RECORDS, bad_records)
        finally:
            net.close()
