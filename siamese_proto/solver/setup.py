"""What a solver consists of: its nets, its update rule, and the device they are on."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from siamese_proto.compiler import build_graph
from siamese_proto.data.bad_records import count_of
from siamese_proto.errors import SolverError
from siamese_proto.layers.pair_labels import check_sources
from siamese_proto.net.net import Net
from siamese_proto.solver.batches import BatchSource
from siamese_proto.solver.given_batches import GivenBatches, given_batches
from siamese_proto.solver.log import Event, log, log_lines
from siamese_proto.solver.parallel import check_graph, current_group
from siamese_proto.solver.rules import RULES, UpdateRule
from siamese_proto.solver.settings import NetSource, Settings

PathLike = str | os.PathLike[str]


def warn_about_settings(settings: Settings) -> None:
    """Log the settings that have no effect here."""
    for note in settings.notes:
        log(Event.SETTINGS, note, level=logging.WARNING)
    if settings.asks_for_gpu and not torch.cuda.is_available():
        text = f"{settings.file}: solver_mode is GPU, but torch finds no GPU here; training on the CPU"
        log(Event.SETTINGS, text, level=logging.WARNING)


def device(settings: Settings) -> torch.device:
    """Return the device to train on: the GPU of the settings, or the CPU if torch finds no GPU."""
    if not settings.use_gpu or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if settings.device_id >= count:
        raise SolverError(f"{settings.file}: device_id is {settings.device_id}, but there are {count} GPUs here")
    return torch.device("cuda", settings.device_id)


@dataclass(frozen=True, kw_only=True)
class NetOptions:
    """Options of every net of a solver."""

    fuse: bool = True
    allow_python_layers: bool = False
    skip_bad_records: bool = False


def train_net(settings: Settings, data: Mapping[str, Iterable[Any]], options: NetOptions) -> tuple[Net, BatchSource]:
    """Build the training net, on its device, and the source of its batches."""
    source, group = settings.net, current_group()
    log(Event.TRAIN_NET, f"Creating training net from {source.description}")
    allowed = options.allow_python_layers
    own_batches: list[GivenBatches] = []
    if data:
        graph = build_graph(source.parsed, source.phase, source.level, source.stages, allow_python_layers=allowed)
        own_batches = given_batches(graph, data)
    shapes = {top: shape for feeder in own_batches for top, shape in feeder.shapes().items()}
    seed = settings.random_seed
    if seed < 0:  # snapshots record it, so that a resumed run draws the same numbers
        seed = group.broadcast_object(int.from_bytes(os.urandom(4), "little"))
    net = _net(source, options, shapes=shapes, seed=seed).to(device(settings))
    check_graph(net.graph, group)
    net.run_state.rank, net.run_state.ranks = group.rank, group.size
    check_sources(net.graph, net.run_state, given={feeder.layer for feeder in own_batches})
    if not net.graph.weighted_tops():
        text = f"{net.graph.file}: no layer of the training net has a loss, so nothing is learned"
        log(Event.TRAIN_NET, text, level=logging.WARNING)
    return net, BatchSource(net, own_batches)


def test_nets(settings: Settings, net: Net, options: NetOptions) -> list[Net]:
    """Build the nets to test with; they share the tensors of the training net."""
    nets = []
    for index, test in enumerate(settings.test_nets):
        log(Event.TEST_NET, f"Creating test net (#{index}) specified by {test.source.description}")
        nets.append(_net(test.source, options, seed=net.run_state.seed, share_with=net).to(net.device))
        check_sources(nets[-1].graph, nets[-1].run_state)
    return nets


def _net(source: NetSource, options: NetOptions, **more: Any) -> Net:
    return Net(source.parsed, source.phase, level=source.level, stages=source.stages, **vars(options), **more)


def update_rule(settings: Settings, net: Net) -> UpdateRule:
    """Build the rule for every tensor of the net, in its order; statistics, which do not learn, have rate 0."""
    params = net.graph.params
    if not params:
        raise SolverError(f"{settings.net.parsed.file}: the net has no parameters, so there is nothing to train")
    return RULES[settings.rule.type](
        list(net.tensors.values()),
        settings.rule,
        lr_mults=[0.0 if param.statistic else param.lr_mult for param in params],
        decay_mults=[param.decay_mult for param in params],
        keep_steps=settings.snapshot_diff,
    )


def log_bad_records(nets: Iterable[Net]) -> None:
    """Log the number of records that were left out, if bad records are allowed."""
    summary = count_of(net.run_state for net in nets)
    if summary is not None:
        log(Event.BAD_RECORDS, summary)


def load_weights(net: Net, weights: PathLike | Sequence[PathLike], *, skip_mismatched: bool = False) -> None:
    """Load one or several weights files; test nets share the tensors."""
    for path in [weights] if isinstance(weights, str | os.PathLike) else weights:
        log(Event.FINE_TUNING, f"Finetuning from {os.fspath(path)}")
        log_lines(Event.WEIGHTS_LOADED, str(net.load_weights(path, skip_mismatched=skip_mismatched)))
