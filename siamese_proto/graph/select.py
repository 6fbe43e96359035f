"""Which layers of a file belong to a net: selection by phase, level and stages (net.cpp: FilterNet, StateMeetsRule)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from siamese_proto.graph.ir import Phase
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet, Source

PHASES: tuple[Phase, Phase] = ("TRAIN", "TEST")


@dataclass(frozen=True)
class NetState:
    """The phase, level and stages that rules of layers are matched with."""

    phase: Phase = "TEST"
    level: int = 0
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelectedLayer:
    """A layer of the net, its place in the text, and the phases that its rules include it in."""

    message: schema.LayerParameter
    source: Source
    phases: tuple[Phase, ...]


def phase_name(number: int) -> Phase:
    """Return the name of a value of the enum Phase."""
    return PHASES[number]


def meets_rule(state: NetState, rule: schema.NetStateRule) -> bool:
    """Return whether the state meets every condition of the rule; an empty rule is always met."""
    return (
        (not rule.HasField("phase") or phase_name(rule.phase) == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and all(stage in state.stages for stage in rule.stage)
        and not any(stage in state.stages for stage in rule.not_stage)
    )


def is_included(layer: schema.LayerParameter, state: NetState, source: Source | None = None) -> bool:
    """Return whether the rules include the layer: no rules, a met `include`, or no met `exclude`.

    A rule for a phase that Caffe does not have (an unknown value in `source`) is never met.
    """
    foreign = {path for path, raw in source.unknown if raw.name == "phase"} if source is not None else set[str]()
    name, rules = ("include", layer.include) if layer.include else ("exclude", layer.exclude)
    met = any(meets_rule(state, rule) for i, rule in enumerate(rules) if f"{name}[{i}]" not in foreign)
    return met if layer.include else not met


def select_layers(parsed: ParsedNet, state: NetState) -> Iterator[SelectedLayer]:
    """Yield the layers of the net for this state, in the order of the file."""
    for message, source in zip(parsed.message.layer, parsed.layers, strict=True):
        if is_included(message, state, source):
            phases = tuple(phase for phase in PHASES if is_included(message, replace(state, phase=phase), source))
            yield SelectedLayer(message, source, phases)


def left_out(parsed: ParsedNet, state: NetState) -> dict[str, SelectedLayer]:
    """Return the blobs of layers that are excluded in this state, each with the first layer that computes it."""
    makers: dict[str, SelectedLayer] = {}
    for message, source in zip(parsed.message.layer, parsed.layers, strict=True):
        if not is_included(message, state, source):
            for blob in message.top:
                makers.setdefault(blob, SelectedLayer(message, source, ()))
    return makers


def stages_asked_for(parsed: ParsedNet, phase: Phase) -> list[tuple[str, ...]]:
    """Return the sets of stages that `include` rules for a phase require, each once, in the order of the file."""
    rules = (rule for layer in parsed.message.layer for rule in layer.include)
    required = (tuple(rule.stage) for rule in rules if not rule.HasField("phase") or phase_name(rule.phase) == phase)
    return [stages for stages in dict.fromkeys(required) if stages]


def names_phase(parsed: ParsedNet, phase: Phase) -> bool:
    """Return whether a rule includes a layer for this phase, so that the net is meant to be built for it."""
    rules = (rule for layer in parsed.message.layer for rule in layer.include)
    return any(rule.HasField("phase") and phase_name(rule.phase) == phase for rule in rules)
