"""Solver settings: SolverParameter read once into plain values, every mistake in it found before training begins."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from siamese_proto.errors import NetError, SolverError, did_you_mean, quoted
from siamese_proto.files import find_path, where_tried
from siamese_proto.graph.ir import Phase
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet, ParsedSolver
from siamese_proto.proto.reader import inline_net, parse_net, parse_solver, unknown_problems
from siamese_proto.solver.policies import POLICIES, Schedule

TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam", "AdamW")
REGULARIZATIONS = ("L2", "L1")
SnapshotFormat = Literal["BINARYPROTO", "HDF5"]
# Where no file gives its name to the snapshots.
DEFAULT_PREFIX = "snapshot"


@dataclass(frozen=True)
class RuleSettings:
    """What an update rule goes by; `type` is one of TYPES, each a class of solver/rules.py."""

    type: str = "SGD"
    momentum: float = 0.0
    momentum2: float = 0.999
    rms_decay: float = 0.99
    delta: float = 1e-8
    weight_decay: float = 0.0
    regularization: Literal["L2", "L1"] = "L2"
    clip_gradients: float = -1.0
    iter_size: int = 1


@dataclass(frozen=True)
class NetSource:
    """A net that the solver names, and the state it is built for."""

    parsed: ParsedNet
    description: str  # as Caffe's log has it: `net file: train.prototxt`
    phase: Phase
    level: int
    stages: tuple[str, ...]  # those of the net's own state not included


@dataclass(frozen=True)
class TestNet:
    """A net to test with, and the number of its batches that make one test."""

    __test__ = False  # nothing for pytest to collect

    source: NetSource
    iterations: int


@dataclass(frozen=True)
class Settings:
    """Everything a solver file says, checked; see SolverParameter for the meaning of each field."""

    file: str
    text: str  # the message, as the log shows it
    net: NetSource
    test_nets: tuple[TestNet, ...]
    test_interval: int
    test_initialization: bool
    test_compute_loss: bool
    schedule: Schedule
    rule: RuleSettings
    max_iter: int | None  # None: not given, as where `step` is told how many iterations to run
    display: int
    average_loss: int
    snapshot: int
    snapshot_prefix: str  # a path; `_iter_N` and the suffixes follow
    snapshot_format: SnapshotFormat
    snapshot_after_train: bool
    snapshot_diff: bool
    debug_info: bool
    random_seed: int
    use_gpu: bool
    asks_for_gpu: bool  # written, not only left at Caffe's default
    device_id: int
    weights: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what is written but does nothing, one line each


def read_settings(solver: str | os.PathLike[str] | ParsedSolver) -> Settings:
    """Read a solver file, or the text of one; raises NetError with file and line for what cannot be carried out."""
    reader = _Reader(solver if isinstance(solver, ParsedSolver) else parse_solver(solver))
    for problem in [*reader.unknown_fields(), *reader.bad_numbers()]:
        raise problem
    return reader.settings()


def find_problems(parsed: ParsedSolver) -> list[NetError]:
    """Everything that `read_settings` would raise, were it not for what it raises first."""
    reader = _Reader(parsed)
    problems: list[NetError] = [*reader.unknown_fields(), *reader.bad_numbers()]
    for check in (reader.schedule, reader.rule, reader.train_net, reader.test_nets):
        try:
            check()
        except NetError as problem:
            problems.append(problem)
    return problems


def with_state(settings: Settings, level: int | None = None, stages: tuple[str, ...] = ()) -> Settings:
    """The settings with another level and more stages for the training net, as the command line gives them."""
    net = settings.net
    level = net.level if level is None else level
    return replace(settings, net=replace(net, level=level, stages=net.stages + stages))


# field: least value allowed, and how to say so
_LEAST: dict[str, tuple[float, str]] = {
    "base_lr": (0, "not be negative"),
    "gamma": (0, "not be negative"),
    "momentum": (0, "not be negative"),
    "momentum2": (0, "not be negative"),
    "rms_decay": (0, "not be negative"),
    "delta": (0, "not be negative"),
    "weight_decay": (0, "not be negative"),
    "max_iter": (0, "not be negative"),
    "display": (0, "not be negative"),
    "snapshot": (0, "not be negative"),
    "test_interval": (0, "not be negative"),
    "device_id": (0, "not be negative"),
    "stepsize": (1, "be positive"),
    "iter_size": (1, "be positive"),
    "average_loss": (1, "be positive"),
    "test_iter": (1, "be positive"),
    "stepvalue": (0, "not be negative"),
    "warmup_iter": (0, "not be negative"),
}


class _Reader:
    """Turns one message into Settings; a class because every check needs the message and its places."""

    def __init__(self, parsed: ParsedSolver) -> None:
        self.parsed = parsed
        self.message = parsed.message

    def problem(self, field: str | None, text: str) -> SolverError:
        return SolverError(text, location=self.parsed.source.find(field), field=field)

    def unknown_fields(self) -> Iterator[SolverError]:
        inline = ("net_param", "train_net_param", "test_net_param")  # those are the net's to judge
        for problem in unknown_problems(self.parsed):
            if problem.field is None or not problem.field.startswith(inline):
                yield SolverError(problem.message, location=problem.location, field=problem.field)

    def bad_numbers(self) -> Iterator[SolverError]:
        for field, (least, must) in _LEAST.items():
            value = getattr(self.message, field)
            repeated = field in ("test_iter", "stepvalue")
            for index, number in enumerate(value if repeated else [value] if self.message.HasField(field) else []):
                if not number >= least:  # so that a NaN is refused too
                    place = f"{field}[{index}]" if repeated else field
                    yield self.problem(place, f"{field} is {number:g}; it must {must}")
        for field in ("momentum2", "rms_decay"):
            if getattr(self.message, field) >= 1:
                yield self.problem(field, f"{field} is {getattr(self.message, field):g}; it must be below 1")

    def settings(self) -> Settings:
        message = self.message
        return Settings(
            file=self.parsed.file,
            text=str(message).rstrip(),
            max_iter=message.max_iter if message.HasField("max_iter") else None,
            schedule=self.schedule(),
            rule=self.rule(),
            net=self.train_net(),
            test_nets=self.test_nets(),
            test_interval=message.test_interval,
            test_initialization=message.test_initialization,
            test_compute_loss=message.test_compute_loss,
            display=message.display,
            average_loss=message.average_loss,
            snapshot=message.snapshot,
            snapshot_prefix=self.snapshot_prefix(),
            snapshot_format="HDF5" if message.snapshot_format == message.HDF5 else "BINARYPROTO",
            snapshot_after_train=message.snapshot_after_train,
            snapshot_diff=message.snapshot_diff,
            debug_info=message.debug_info,
            random_seed=message.random_seed,
            use_gpu=message.solver_mode == message.GPU,
            asks_for_gpu=message.HasField("solver_mode") and message.solver_mode == message.GPU,
            device_id=message.device_id,
            weights=self.weights(),
            notes=self.notes(),
        )

    def schedule(self) -> Schedule:
        message = self.message
        if not message.HasField("base_lr"):
            raise self.problem(None, "base_lr is missing: the learning rate to begin with, for example base_lr: 0.01")
        known = ", ".join(POLICIES)
        if not message.HasField("lr_policy"):
            raise self.problem(None, f"lr_policy is missing; it is one of {known}")
        policy = message.lr_policy
        if policy not in POLICIES:
            hint = did_you_mean(policy, POLICIES)
            raise self.problem("lr_policy", f"unknown lr_policy {quoted(policy)}; it is one of {known}{hint}")
        for field in POLICIES[policy].needs:
            given = len(message.stepvalue) if field == "stepvalue" else message.HasField(field)
            if not given:
                raise self.problem("lr_policy", f"lr_policy {quoted(policy)} needs {field}, which is missing")
        if policy == "poly" and (message.max_iter == 0 or message.power < 0):
            raise self.problem("lr_policy", "lr_policy 'poly' needs a positive max_iter and a power of at least 0")
        if policy == "cosine" and message.max_iter <= message.warmup_iter:
            raise self.problem("lr_policy", "lr_policy 'cosine' needs a max_iter above warmup_iter")
        if list(message.stepvalue) != sorted(message.stepvalue):
            raise self.problem("stepvalue[0]", f"stepvalue is {list(message.stepvalue)}; it must not go down")
        return Schedule(
            policy,
            message.base_lr,
            message.gamma,
            message.power,
            message.stepsize,
            tuple(message.stepvalue),
            message.max_iter,
            message.warmup_iter,
        )

    def rule(self) -> RuleSettings:
        message = self.message
        for field, value, known in (
            ("type", message.type, TYPES),
            ("regularization_type", message.regularization_type, REGULARIZATIONS),
        ):
            if value not in known:
                hint = did_you_mean(value, known)
                raise self.problem(field, f"unknown {field} {quoted(value)}; it is one of {', '.join(known)}{hint}")
        if message.type in ("AdaGrad", "RMSProp") and message.momentum != 0:
            text = f"momentum is {message.momentum:g}, but {message.type} has none; leave it out"
            raise self.problem("momentum", text)
        if message.type in ("Adam", "AdamW") and message.momentum >= 1:
            raise self.problem("momentum", f"momentum is {message.momentum:g}; for {message.type} it must be below 1")
        if message.type == "AdamW" and message.regularization_type != "L2":
            raise self.problem(
                "regularization_type", "regularization_type is 'L1', but AdamW decays weights as L2 does"
            )
        return RuleSettings(
            message.type,
            message.momentum,
            message.momentum2,
            message.rms_decay,
            message.delta,
            message.weight_decay,
            cast(Literal["L2", "L1"], message.regularization_type),
            message.clip_gradients,
            message.iter_size,
        )

    def train_net(self) -> NetSource:
        message = self.message
        fields = ("net", "net_param", "train_net", "train_net_param")
        given = [field for field in fields if message.HasField(field)]
        if not given:
            raise self.problem(None, 'no net to train; name one, for example net: "train_test.prototxt"')
        if len(given) > 1:
            raise self.problem(given[1], f"{' and '.join(given)} both name the net to train; keep one of them")
        state = message.train_state if message.HasField("train_state") else None
        return self.source(given[0], "TRAIN", state)

    def test_nets(self) -> tuple[TestNet, ...]:
        message = self.message
        fields = [f"test_net_param[{index}]" for index in range(len(message.test_net_param))]
        fields += [f"test_net[{index}]" for index in range(len(message.test_net))]
        own = next((field for field in ("net", "net_param") if message.HasField(field)), None)
        count = len(message.test_iter)
        if count > len(fields) and own is not None:
            fields += [own] * (count - len(fields))
        if count > len(fields):
            raise self.problem(
                f"test_iter[{len(fields)}]",
                f"test_iter number {len(fields) + 1} has no test net; name one with test_net",
            )
        if count < len(fields):
            field = fields[count]
            text = f"test net number {count + 1} has no test_iter: how many of its batches make a test"
            raise self.problem(field, text)
        states = message.test_state
        if states and len(states) != count:
            text = f"{len(states)} test_state, but the number of test nets is {count}; give one for each, or none"
            raise self.problem("test_state[0]", text)
        if count and not message.HasField("test_interval"):
            text = "test_iter without test_interval: after how many iterations to test, for example test_interval: 500"
            raise self.problem("test_iter[0]", text)
        if count and message.test_interval == 0:
            raise self.problem("test_interval", "test_interval is 0, but there are test nets; it must be positive")
        sources = [self.source(field, "TEST", states[i] if states else None) for i, field in enumerate(fields)]
        return tuple(TestNet(source, n) for source, n in zip(sources, message.test_iter, strict=True))

    def source(self, field: str, phase: Phase, state: schema.NetState | None) -> NetSource:
        """The net of one field; its state is the phase's, then the net's own, then the solver's (solver.cpp)."""
        name, _, index = field.removesuffix("]").partition("[")
        value = getattr(self.message, name)[int(index)] if index else getattr(self.message, name)
        if isinstance(value, str):
            path = self.find_net(field, value)
            parsed, description = parse_net(path), f"{name} file: {path}"
        else:
            parsed, description = inline_net(self.parsed, field), name
        merged = schema.NetState(phase=schema.TRAIN if phase == "TRAIN" else schema.TEST)
        merged.MergeFrom(parsed.message.state)
        stages = tuple(state.stage) if state is not None else ()
        if state is not None:
            merged.MergeFrom(state)
        merged_phase: Phase = "TRAIN" if merged.phase == schema.TRAIN else "TEST"
        return NetSource(parsed, description, merged_phase, merged.level, stages)

    def folder(self) -> Path:
        """The folder that the solver file lies in; the working directory for text."""
        return Path(self.parsed.file).parent if not self.parsed.file.startswith("<") else Path()

    def find(self, name: str) -> str | None:
        """Paths count from the working directory, as in Caffe, then from the folder of the solver file."""
        path = find_path(name, os.fspath(self.folder()))
        return path if path is not None and os.path.isfile(path) else None

    def weights(self) -> tuple[str, ...]:
        names = [name.strip() for names in self.message.weights for name in names.split(",")]
        return tuple(self.find(name) or name for name in names)

    def find_net(self, field: str, name: str) -> str:
        if not name:
            raise self.problem(field, "the path of the net is empty")
        path = self.find(name)
        if path is not None:
            return path
        tried = where_tried(name, os.fspath(self.folder()), "the solver file")
        base = re.split(r"[\\/]", name)[-1]
        nearby = base and base != name and (self.folder() / base).is_file()
        hint = f'; a file of that name is next to the solver: {field.partition("[")[0]}: "{base}"' if nearby else ""
        raise self.problem(field, f"net file {quoted(name)} not found{tried}{hint}")

    def snapshot_prefix(self) -> str:
        """As written; else the solver file without its extension. A folder holds snapshots named after the solver."""
        is_text = self.parsed.file.startswith("<")  # or the standard input
        stem = DEFAULT_PREFIX if is_text else Path(self.parsed.file).stem
        prefix = self.message.snapshot_prefix
        if not prefix:
            return os.fspath(self.folder() / stem)
        base = next((base for base in (Path(), self.folder()) if (base / prefix).parent.is_dir()), Path())
        path = base / prefix
        return os.fspath(path / stem if path.is_dir() else path)

    def notes(self) -> tuple[str, ...]:
        """What a user would miss: settings that are written but change nothing here."""
        message = self.message
        found = []
        if message.HasField("test_interval") and message.test_interval and not message.test_iter:
            found.append("test_interval does nothing without test_iter: nothing is tested")
        if message.debug_info and not message.display and not message.test_iter:
            found.append("debug_info does nothing without display: it is shown where losses are displayed")
        if message.HasField("layer_wise_reduce"):
            found.append("layer_wise_reduce has no effect: it is about gradients on several GPUs, and here one is used")
        if message.device_id and message.solver_mode == message.CPU:
            found.append("device_id has no effect with solver_mode: CPU")
        return tuple(f"{self.parsed.file}: {note}" for note in found)
