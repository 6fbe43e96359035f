"""Read fields that only a registered layer type knows, such as `my_layer_param { ... }`."""

from dataclasses import replace

from siamese_proto.errors import ParseError, did_you_mean, quoted
from siamese_proto.layers.base import registered
from siamese_proto.layers.settings.user_settings import OwnSettings
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet, Source
from siamese_proto.proto.reader import UnknownFieldError


def claim_settings(parsed: ParsedNet) -> tuple[ParsedNet, list[ParseError]]:
    """Return the net with the settings of registered types in their layers' messages, and the errors in the settings.

    The settings are stored as in a binary file, under the number of their field. Layers, writers and comparisons of
    layers therefore see one form. The fields are removed from the unknown fields.
    """
    kinds = {name: kind for name, kind in registered().items() if kind.own_settings is not None}
    if not any(layer.type in kinds for layer in parsed.message.layer):
        return parsed, []
    message = schema.NetParameter()
    message.CopyFrom(parsed.message)
    sources: list[Source] = []
    problems: list[ParseError] = []
    for layer, source in zip(message.layer, parsed.layers, strict=True):
        own = kinds[layer.type].own_settings if layer.type in kinds else None
        try:
            sources.append(_claimed(layer, source, own) if own is not None else source)
        except ParseError as problem:
            problem.layer = layer.name
            problems.append(problem)
            sources.append(_without(source, (problem.field or "").partition(".")[0].partition("[")[0]))
    return replace(parsed, message=message, layers=tuple(sources)), problems


def _claimed(layer: schema.LayerParameter, source: Source, own: OwnSettings) -> Source:
    raws = [raw for path, raw in source.unknown if not path and raw.name == own.name]
    for path, raw in source.unknown:
        hint = did_you_mean(raw.name, [own.name])
        if not path and hint and not raws:
            raise UnknownFieldError(f"unknown field {quoted(raw.name)}{hint}", location=raw.location, field=raw.name)
    if not raws:
        return source
    data, places = own.from_text(raws)
    own.put(layer, data)
    rest = _without(source, own.name)
    return replace(rest, fields={**rest.fields, **places})


def _without(source: Source, name: str) -> Source:
    return replace(source, unknown=tuple(entry for entry in source.unknown if entry[0] or entry[1].name != name))
