"""What a solver is made of: its nets, its update rule, the device they live on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from siamese_proto.compiler import build_graph
from siamese_proto.data.bad_records import count_of
from siamese_proto.errors import SolverError
from siamese_proto.graph.ir import Graph
from siamese_proto.layers.base import DataLayer
from siamese_proto.layers.pair_labels import check_sources
from siamese_proto.net.net import Net
from siamese_proto.solver.batches import BatchSource, given_batches
from siamese_proto.solver.log import Event, log, log_lines
from siamese_proto.solver.parallel import check_graph, current
from siamese_proto.solver.rules import RULES, UpdateRule
from siamese_proto.solver.settings import NetSource, Settings

PathLike = str | os.PathLike[str]


def report(settings: Settings) -> None:
    """Log what the settings ask for and will not get."""
    for note in settings.notes:
        log(Event.SETTINGS, note, level=logging.WARNING)
    if settings.asks_for_gpu and not torch.cuda.is_available():
        text = f"{settings.file}: solver_mode is GPU, but there is none here; training on the CPU"
        log(Event.SETTINGS, text, level=logging.WARNING)


def device(settings: Settings) -> torch.device:
    """Where to train: the GPU of the settings, or the CPU where there is none."""
    if not settings.use_gpu or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if settings.device_id >= count:
        raise SolverError(f"{settings.file}: device_id is {settings.device_id}, but there are {count} GPUs here")
    return torch.device("cuda", settings.device_id)


def seed(settings: Settings) -> int:
    """The seed of the settings, or one for this run; snapshots record it, so that a run goes on as it began."""
    if settings.random_seed >= 0:
        return settings.random_seed
    return current().same(int.from_bytes(os.urandom(4), "little"))


@dataclass(frozen=True)
class NetOptions:
    """What holds for every net of a solver."""

    fuse: bool = True
    allow_python_layers: bool = False
    skip_bad_records: bool = False


def train_net(settings: Settings, data: Mapping[str, Iterable[Any]], options: NetOptions) -> tuple[Net, BatchSource]:
    """The net to train, on its device, and where its batches come from."""
    source = settings.net
    log(Event.TRAIN_NET, f"Creating training net from {source.description}")
    given = given_batches(_graph(source, options), data) if data else []
    shapes = {top: shape for feeder in given for top, shape in feeder.shapes().items()}
    net = _net(source, options, shapes=shapes, seed=seed(settings))
    net.to(device(settings))
    team = current()
    check_graph(net.graph, team)
    net.run.rank, net.run.ranks = team.rank, team.count
    check_sources(net.graph, net.run, given={feeder.layer for feeder in given})
    if not any(weight for node in net.graph.nodes for weight in node.loss_weights):
        text = f"{net.graph.file}: no layer of the training net has a loss, so nothing is learned"
        log(Event.TRAIN_NET, text, level=logging.WARNING)
    return net, BatchSource(net, given)


def test_nets(settings: Settings, net: Net, options: NetOptions) -> list[Net]:
    """The nets to test with; they hold the training net's own tensors."""
    found = []
    for index, test in enumerate(settings.test_nets):
        log(Event.TEST_NET, f"Creating test net (#{index}) specified by {test.source.description}")
        found.append(_net(test.source, options, seed=net.run.seed, share_with=net).to(net.device))
        check_sources(found[-1].graph, found[-1].run)
    return found


def _graph(source: NetSource, options: NetOptions) -> Graph:
    allowed = options.allow_python_layers
    return build_graph(source.parsed, source.phase, source.level, source.stages, allow_python_layers=allowed)


def _net(source: NetSource, options: NetOptions, **more: Any) -> Net:
    return Net(
        source.parsed,
        source.phase,
        level=source.level,
        stages=source.stages,
        fuse=options.fuse,
        allow_python_layers=options.allow_python_layers,
        skip_bad_records=options.skip_bad_records,
        **more,
    )


def update_rule(settings: Settings, net: Net) -> UpdateRule:
    """The rule over every tensor of the net, in its order; statistics, which nothing teaches, have rate 0."""
    params = net.graph.params
    if not params:
        raise SolverError(f"{settings.net.parsed.file}: the net has no parameters, so there is nothing to train")
    lr_mults = [0.0 if param.statistic else param.lr_mult for param in params]
    return RULES[settings.rule.type](
        list(net.tensors.values()),
        settings.rule,
        lr_mults=lr_mults,
        decay_mults=[param.decay_mult for param in params],
        keep_steps=settings.snapshot_diff,
    )


def report_bad_records(nets: Iterable[Net]) -> None:
    """Log how many records were left out because they cannot be used, where that is allowed."""
    count = count_of(net.run for net in nets)
    if count is not None:
        log(Event.BAD_RECORDS, count)


def load_weights(net: Net, weights: PathLike | Sequence[PathLike], *, skip_mismatched: bool = False) -> None:
    """Begin with the parameters of one or several weights files; the nets tested with hold the same tensors."""
    for path in [weights] if isinstance(weights, str | os.PathLike) else weights:
        log(Event.FINE_TUNING, f"Finetuning from {os.fspath(path)}")
        log_lines(Event.WEIGHTS_LOADED, str(net.load_weights(path, skip_mismatched=skip_mismatched)))


def data_layers(net: Net) -> list[str]:
    """Names of the layers that read data."""
    return [node.id for node in net.graph.nodes if isinstance(node.layer, DataLayer)]
