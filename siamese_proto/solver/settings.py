"""Solver settings: SolverParameter read once into plain values, with every error found before training begins."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

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
_DEFAULT_STEM = "snapshot"  # of snapshots, if the solver has no file name

Values = TypeVar("Values")


@dataclass(frozen=True)
class RuleSettings:
    """The settings of an update rule; `type` is one of TYPES, each a class of solver/rules.py."""

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
    """A net that the solver names, and the state that it is built for."""

    parsed: ParsedNet
    description: str  # as in Caffe's log: `net file: train.prototxt`
    phase: Phase
    level: int
    stages: tuple[str, ...]  # without those of the net's own state


@dataclass(frozen=True)
class TestNet:
    """A net to test with, and the number of batches per test."""

    __test__ = False  # nothing for pytest to collect

    source: NetSource
    iterations: int


@dataclass(frozen=True)
class Settings:
    """The checked content of a solver file; see SolverParameter for the meaning of each field."""

    file: str
    text: str  # the message, as in the log
    net: NetSource
    test_nets: tuple[TestNet, ...]
    test_interval: int
    test_initialization: bool
    test_compute_loss: bool
    schedule: Schedule
    rule: RuleSettings
    max_iter: int | None  # None: not given; `step` needs none
    display: int
    average_loss: int
    snapshot: int
    snapshot_prefix: str  # a path without `_iter_N` and the suffixes
    snapshot_format: SnapshotFormat
    snapshot_after_train: bool
    snapshot_diff: bool
    debug_info: bool
    random_seed: int
    use_gpu: bool
    asks_for_gpu: bool  # `solver_mode: GPU` is written, not only Caffe's default
    device_id: int
    weights: tuple[str, ...]
    notes: tuple[str, ...] = ()  # settings without an effect, one line each


def read_settings(solver: str | os.PathLike[str] | ParsedSolver) -> Settings:
    """Read a solver file, or the text of one.

    Raises:
        NetError: The first error, with file and line.
    """
    reader = _Reader(solver if isinstance(solver, ParsedSolver) else parse_solver(solver))
    for problem in [*reader.unknown_fields(), *reader.bad_numbers()]:
        raise problem
    return reader.settings()


def find_problems(parsed: ParsedSolver) -> list[NetError]:
    """Return every error of a solver, of which `read_settings` raises the first."""
    reader = _Reader(parsed)
    problems: list[NetError] = [*reader.unknown_fields(), *reader.bad_numbers()]
    for check in (reader.schedule, reader.rule, reader.train_net, reader.test_nets):
        try:
            check()
        except NetError as problem:
            problems.append(problem)
    return problems


def with_state(settings: Settings, level: int | None = None, stages: tuple[str, ...] = ()) -> Settings:
    """Return the settings with another level and additional stages for the training net."""
    net = settings.net
    level = net.level if level is None else level
    return replace(settings, net=replace(net, level=level, stages=net.stages + stages))


_NOT_NEGATIVE = (
    *("base_lr", "gamma", "momentum", "momentum2", "rms_decay", "delta", "weight_decay", "max_iter", "display"),
    *("snapshot", "test_interval", "device_id", "stepvalue", "warmup_iter"),
)
_POSITIVE = ("stepsize", "iter_size", "average_loss", "test_iter")


def _with_fields(cls: Callable[..., Values], message: schema.SolverParameter, own: dict[str, Any]) -> Values:
    """A dataclass of the message's fields of the same names, and `own` values for its other fields."""
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # it is a dataclass
    return cls(**{name: own[name] if name in own else getattr(message, name) for name in names})


class _Reader:
    """Converts one message to Settings; a class because every check needs the message and its locations."""

    def __init__(self, parsed: ParsedSolver) -> None:
        self.parsed = parsed
        self.message = parsed.message

    def problem(self, field: str | None, text: str) -> SolverError:
        return SolverError(text, location=self.parsed.source.find(field), field=field)

    def unknown_fields(self) -> Iterator[SolverError]:
        inline = ("net_param", "train_net_param", "test_net_param")  # checked with the net
        for problem in unknown_problems(self.parsed):
            if problem.field is None or not problem.field.startswith(inline):
                yield SolverError(problem.message, location=problem.location, field=problem.field)

    def bad_numbers(self) -> Iterator[SolverError]:
        for field in (*_NOT_NEGATIVE, *_POSITIVE):
            least, rule = (1, "be positive") if field in _POSITIVE else (0, "not be negative")
            value = getattr(self.message, field)
            repeated = field in ("test_iter", "stepvalue")
            for index, number in enumerate(value if repeated else [value] if self.message.HasField(field) else []):
                if not number >= least:  # also true for NaN
                    place = f"{field}[{index}]" if repeated else field
                    yield self.problem(place, f"{field} is {number:g}; it must {rule}")
        for field in ("momentum2", "rms_decay"):
            if getattr(self.message, field) >= 1:
                yield self.problem(field, f"{field} is {getattr(self.message, field):g}; it must be below 1")

    def settings(self) -> Settings:
        message = self.message
        is_gpu = message.solver_mode == message.GPU
        own = {
            "file": self.parsed.file,
            "text": str(message).rstrip(),
            "max_iter": message.max_iter if message.HasField("max_iter") else None,
            "schedule": self.schedule(),
            "rule": self.rule(),
            "net": self.train_net(),
            "test_nets": self.test_nets(),
            "snapshot_prefix": self.snapshot_prefix(),
            "snapshot_format": "HDF5" if message.snapshot_format == message.HDF5 else "BINARYPROTO",
            "use_gpu": is_gpu,
            "asks_for_gpu": message.HasField("solver_mode") and is_gpu,
            "weights": self.weights(),
            "notes": self.notes(),
        }
        return _with_fields(Settings, message, own)

    def schedule(self) -> Schedule:
        message = self.message
        if not message.HasField("base_lr"):
            raise self.problem(None, "base_lr is missing: the learning rate to begin with, for example base_lr: 0.01")
        policies = ", ".join(POLICIES)
        if not message.HasField("lr_policy"):
            raise self.problem(None, f"lr_policy is missing; it is one of {policies}")
        policy = message.lr_policy
        if policy not in POLICIES:
            hint = did_you_mean(policy, POLICIES)
            raise self.problem("lr_policy", f"unknown lr_policy {quoted(policy)}; it is one of {policies}{hint}")
        for field in POLICIES[policy].needs:
            is_given = len(message.stepvalue) if field == "stepvalue" else message.HasField(field)
            if not is_given:
                raise self.problem("lr_policy", f"lr_policy {quoted(policy)} needs {field}, which is missing")
        if policy == "poly" and (message.max_iter == 0 or message.power < 0):
            raise self.problem("lr_policy", "lr_policy 'poly' needs a positive max_iter and a power of at least 0")
        if policy == "cosine" and message.max_iter <= message.warmup_iter:
            raise self.problem("lr_policy", "lr_policy 'cosine' needs a max_iter above warmup_iter")
        if list(message.stepvalue) != sorted(message.stepvalue):
            raise self.problem("stepvalue[0]", f"stepvalue is {list(message.stepvalue)}; it must not go down")
        own = {"policy": policy, "stepvalues": tuple(message.stepvalue), "warmup": message.warmup_iter}
        return _with_fields(Schedule, message, own)

    def rule(self) -> RuleSettings:
        message = self.message
        for field, value, choices in (
            ("type", message.type, TYPES),
            ("regularization_type", message.regularization_type, REGULARIZATIONS),
        ):
            if value not in choices:
                hint = did_you_mean(value, choices)
                raise self.problem(field, f"unknown {field} {quoted(value)}; it is one of {', '.join(choices)}{hint}")
        if message.type in ("AdaGrad", "RMSProp") and message.momentum != 0:
            text = f"momentum is {message.momentum:g}, but {message.type} has none; leave it out"
            raise self.problem("momentum", text)
        if message.type in ("Adam", "AdamW") and message.momentum >= 1:
            raise self.problem("momentum", f"momentum is {message.momentum:g}; for {message.type} it must be below 1")
        if message.type == "AdamW" and message.regularization_type != "L2":
            text = "regularization_type is 'L1', but AdamW decays weights as L2 does"
            raise self.problem("regularization_type", text)
        return _with_fields(RuleSettings, message, {"regularization": message.regularization_type})

    def train_net(self) -> NetSource:
        message = self.message
        names = [f for f in ("net", "net_param", "train_net", "train_net_param") if message.HasField(f)]
        if not names:
            raise self.problem(None, 'no net to train; name one, for example net: "train_test.prototxt"')
        if len(names) > 1:
            raise self.problem(names[1], f"{' and '.join(names)} both name the net to train; keep one of them")
        return self.source(names[0], "TRAIN", message.train_state if message.HasField("train_state") else None)

    def test_nets(self) -> tuple[TestNet, ...]:
        message = self.message
        nets = [f"test_net_param[{index}]" for index in range(len(message.test_net_param))]
        nets += [f"test_net[{index}]" for index in range(len(message.test_net))]
        count = len(message.test_iter)
        for field in ("net", "net_param"):
            if message.HasField(field):
                nets += [field] * (count - len(nets))
        if count > len(nets):
            text = f"test_iter number {len(nets) + 1} has no test net; name one with test_net"
            raise self.problem(f"test_iter[{len(nets)}]", text)
        if count < len(nets):
            text = f"test net number {count + 1} has no test_iter, the number of batches per test"
            raise self.problem(nets[count], text)
        states = message.test_state
        if states and len(states) != count:
            text = f"{len(states)} test_state, but the number of test nets is {count}; give one for each, or none"
            raise self.problem("test_state[0]", text)
        if count and not message.HasField("test_interval"):
            text = "test_iter without test_interval: after how many iterations to test, for example test_interval: 500"
            raise self.problem("test_iter[0]", text)
        if count and message.test_interval == 0:
            raise self.problem("test_interval", "test_interval is 0, but there are test nets; it must be positive")
        sources = [self.source(field, "TEST", states[i] if states else None) for i, field in enumerate(nets)]
        return tuple(TestNet(source, n) for source, n in zip(sources, message.test_iter, strict=True))

    def source(self, field: str, phase: Phase, state: schema.NetState | None) -> NetSource:
        """The net of one field; its state merges the phase, the net's own state, then the solver's (solver.cpp)."""
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
        """The folder of the solver file; the working directory for text."""
        return Path(self.parsed.file).parent if not self.parsed.file.startswith("<") else Path()

    def find(self, name: str) -> str | None:
        """Paths are relative to the working directory, as in Caffe, or to the folder of the solver file."""
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
        """As written, else the solver file without its extension. In a folder, snapshots are named after the solver."""
        is_text = self.parsed.file.startswith("<")  # or the standard input
        stem = _DEFAULT_STEM if is_text else Path(self.parsed.file).stem
        prefix = self.message.snapshot_prefix
        if not prefix:
            return os.fspath(self.folder() / stem)
        base = next((base for base in (Path(), self.folder()) if (base / prefix).parent.is_dir()), Path())
        path = base / prefix
        return os.fspath(path / stem if path.is_dir() else path)

    def notes(self) -> tuple[str, ...]:
        """Settings that are written but have no effect."""
        message = self.message
        notes = []
        if message.HasField("test_interval") and message.test_interval and not message.test_iter:
            notes.append("test_interval does nothing without test_iter: nothing is tested")
        if message.debug_info and not message.display and not message.test_iter:
            notes.append("debug_info does nothing without display: it is logged with the displayed losses")
        if message.HasField("layer_wise_reduce"):
            notes.append("layer_wise_reduce has no effect: gradients of several GPUs are always averaged together")
        if message.device_id and message.solver_mode == message.CPU:
            notes.append("device_id has no effect with solver_mode: CPU")
        return tuple(f"{self.parsed.file}: {note}" for note in notes)
