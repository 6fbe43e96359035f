"""The data layers in the text of an included net: their sources are replaced, and comments stay."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from siamese_proto.errors import DataError, quoted
from siamese_proto.projects.sources import ImageSource

# These patterns match the style of the included networks.
_LAYER = re.compile(r"^layer \{\n(?:  .*\n)*?  (?:pair_)?data_param \{(?:.*\n)*?\}\n", re.MULTILINE)
_PHASE = re.compile(r"\bphase: (TRAIN|TEST)\b")
_TUPLE = re.compile(r"\btuple: (TRIPLET|BALANCED)\b")
_ROOT = re.compile(r'\broot_folder: ("(?:[^"\\]|\\.)*")')
_SOURCE = re.compile(r'\bsource: ("(?:[^"\\]|\\.)*")')
_SOURCE_LINE = re.compile(r"^( *)source: .*\n", re.MULTILINE)
_OF_THE_OLD_SOURCE = re.compile(r"^ *(?:kind|classes|exclude_classes|labels|root_folder): .*\n", re.MULTILINE)
_DATABASE = re.compile(r"^  data_param \{ source: .* batch_size: ([0-9]+) \}\n", re.MULTILINE)
# Pairs like those in the database of mnist_siamese: gray images of MNIST's size.
_DRAWN_PAIRS = """\
  pair_data_param {{
    source: ""
    tuple: PAIR
    batch_size: {batch_size}
    new_height: 28
    new_width: 28
    is_color: false
  }}
"""


def own_root(text: str) -> str:
    """Return the root_folder that a net has for the paths in its own list, or an empty text."""
    match = _ROOT.search(text)
    return json.loads(match[1]) if match else ""


def named_sources(text: str) -> list[str]:
    """Return the sources in a net, in the order of its layers, each once."""
    return list(dict.fromkeys(json.loads(literal) for literal in _SOURCE.findall(text)))


def replace_sources(text: str, sources: Mapping[str, ImageSource], folder: Path | None) -> str:
    """Replace the sources of some phases in the text of a net.

    Args:
        text: The net.
        sources: The new sources by phase.
        folder: Paths are relative to this folder; None: absolute.

    Raises:
        DataError: a layer cannot draw from its new source.
    """

    def replaced(match: re.Match[str]) -> str:
        phase = _PHASE.search(match[0])
        return _replace_source(match[0], sources[phase[1]], folder) if phase and phase[1] in sources else match[0]

    return _LAYER.sub(replaced, text)


def _replace_source(layer: str, source: ImageSource, folder: Path | None) -> str:
    path = _path_from(folder, source.path) if source.is_path else source.path
    fields = {"source": _literal(path)}
    if match := _DATABASE.search(layer):
        if source.kind in ("PAIRS", "MISSING"):
            backend = " backend: LMDB" if source.backend == "LMDB" else ""
            return _SOURCE.sub(lambda _: f"source: {fields['source']}{backend}", layer)
        pairs = _DRAWN_PAIRS.format(batch_size=match[1])
        layer = _DATABASE.sub(pairs, layer.replace('type: "Data"', 'type: "PairData"'))
    tuples = _TUPLE.search(layer)
    if source.kind == "CSV" and tuples:
        raise DataError(
            f"{quoted(source.path)} has pairs, but this network draws {tuples[1].lower()} tuples of labeled images: "
            "give a folder with a sub-folder for each class, or another source with classes"
        )
    if source.kind == "PAIRS":
        raise DataError(
            f"{quoted(source.path)} is a database of pairs ({source.text}), but this network draws pairs of labeled "
            "images itself: give single images, or start with mnist_siamese"
        )
    if source.is_path:
        fields["kind"] = source.kind
    if source.root_folder:
        root = source.root_folder
        fields["root_folder"] = _literal(os.path.join(_path_from(folder, root), "") if os.path.isabs(root) else root)
    if source.classes:
        fields["classes"] = _literal(source.classes)
    lines = [f"{name}: {value}\n" for name, value in fields.items()]
    layer = _OF_THE_OLD_SOURCE.sub("", layer)
    return _SOURCE_LINE.sub(lambda match: "".join(match[1] + line for line in lines), layer)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _path_from(folder: Path | None, path: str) -> str:
    """The relative path from a folder. Links are resolved, as `..` in a path starts at the target of a link."""
    real = os.path.realpath(path)
    return real if folder is None else os.path.relpath(real, os.path.realpath(folder))
