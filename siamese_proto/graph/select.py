"""Which layers of a file belong to a net: selection by phase, level and stages (net.cpp: FilterNet, StateMeetsRule)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from siamese_proto.graph.ir import Phase
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet, Source

PHASES: tuple[Phase, Phase] = ("TRAIN", "TEST")


@dataclass(frozen=True)
class NetState:
    """What a net is built for; rules of layers are matched against it."""

    phase: Phase = "TEST"
    level: int = 0
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelectedLayer:
    """A layer of the net with its place in the text and the phases that its rules admit it in."""

    message: schema.LayerParameter
    source: Source
    phases: tuple[Phase, ...]


def phase_name(number: int) -> Phase:
    """The name of a value of the enum Phase."""
    return PHASES[number]


def meets_rule(state: NetState, rule: schema.NetStateRule) -> bool:
    """Whether all that the rule states holds; an empty rule always does."""
    return (
        (not rule.HasField("phase") or phase_name(rule.phase) == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and all(stage in state.stages for stage in rule.stage)
        and not any(stage in state.stages for stage in rule.not_stage)
    )


def is_included(layer: schema.LayerParameter, state: NetState) -> bool:
    """Without rules always; with `include` if any is met; with `exclude` unless any is met."""
    if layer.include:
        return any(meets_rule(state, rule) for rule in layer.include)
    return not any(meets_rule(state, rule) for rule in layer.exclude)


def select_layers(parsed: ParsedNet, state: NetState) -> Iterator[SelectedLayer]:
    """The layers of the net for this state, in the order of the file."""
    for message, source in zip(parsed.message.layer, parsed.layers, strict=True):
        if is_included(message, state):
            phases = tuple(phase for phase in PHASES if is_included(message, replace(state, phase=phase)))
            yield SelectedLayer(message, source, phases)
