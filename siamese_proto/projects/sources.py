"""Own sources in the text of an included net: its data layers are rewritten, its comments stay."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from siamese_proto.errors import DataError, quoted
from siamese_proto.projects.images import Images

# As the files of these networks write their data layers.
_LAYER = re.compile(r"^layer \{\n(?:  .*\n)*?  (?:pair_)?data_param \{(?:.*\n)*?\}\n", re.MULTILINE)
_PHASE = re.compile(r"\bphase: (TRAIN|TEST)\b")
_TUPLE = re.compile(r"\btuple: (TRIPLET|BALANCED)\b")
_ROOT = re.compile(r'\broot_folder: ("(?:[^"\\]|\\.)*")')
_SOURCE = re.compile(r'\bsource: ("(?:[^"\\]|\\.)*")')
_SOURCE_LINE = re.compile(r"^( *)source: .*\n", re.MULTILINE)
_OF_THE_OLD_SOURCE = re.compile(r"^ *(?:kind|classes|exclude_classes|labels|root_folder): .*\n", re.MULTILINE)
_DATABASE = re.compile(r"^  data_param \{ source: .* batch_size: ([0-9]+) \}\n", re.MULTILINE)
# What the pairs of mnist_siamese's database are: two gray images of MNIST's size, one after the other.
_DRAWN = """\
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
    """The root_folder that a net has for the names in its own list, or an empty text."""
    found = _ROOT.search(text)
    return json.loads(found[1]) if found else ""


def named_sources(text: str) -> list[str]:
    """The sources that a net names, in the order of its layers, each once."""
    return list(dict.fromkeys(json.loads(literal) for literal in _SOURCE.findall(text)))


def with_sources(text: str, images: Mapping[str, Images], folder: Path | None) -> str:
    """The text with other sources for some phases.

    Paths are written as they are seen from `folder`; None: from the root. Raises DataError where a layer cannot draw
    from such a source.
    """

    def rewritten(found: re.Match[str]) -> str:
        phase = _PHASE.search(found[0])
        return _rewritten(found[0], images[phase[1]], folder) if phase and phase[1] in images else found[0]

    return _LAYER.sub(rewritten, text)


def _rewritten(layer: str, images: Images, folder: Path | None) -> str:
    path = _seen_from(folder, images.path) if images.is_path else images.path
    source = json.dumps(path, ensure_ascii=False)
    if found := _DATABASE.search(layer):
        if images.kind in ("PAIRS", "MISSING"):
            backend = " backend: LMDB" if images.backend == "LMDB" else ""
            return _SOURCE.sub(lambda _: f"source: {source}{backend}", layer)
        layer = _DATABASE.sub(_DRAWN.format(batch_size=found[1]), layer.replace('type: "Data"', 'type: "PairData"'))
    _refuse(layer, images)
    fields = {"source": source}
    if images.is_path:
        fields["kind"] = images.kind
    if images.root_folder:
        fields["root_folder"] = json.dumps(_root_seen_from(folder, images.root_folder), ensure_ascii=False)
    if images.classes:
        fields["classes"] = json.dumps(images.classes)
    layer = _OF_THE_OLD_SOURCE.sub("", layer)
    return _SOURCE_LINE.sub(lambda found: "".join(f"{found[1]}{name}: {fields[name]}\n" for name in fields), layer)


def _refuse(layer: str, images: Images) -> None:
    drawn = _TUPLE.search(layer)
    if images.kind == "CSV" and drawn:
        raise DataError(
            f"{quoted(images.path)} names pairs, but this network draws {drawn[1].lower()} tuples of labeled images: "
            "give a folder with a sub-folder for each class, or another source with classes"
        )
    if images.kind == "PAIRS":
        raise DataError(
            f"{quoted(images.path)} is a database of pairs ({images.text}), but this network draws pairs of labeled "
            "images by itself: give single images, or start with mnist_siamese"
        )


def _seen_from(folder: Path | None, path: str) -> str:
    """The relative path from a folder. Links are followed: `..` in a path begins where the link leads."""
    real = os.path.realpath(path)
    return real if folder is None else os.path.relpath(real, os.path.realpath(folder))


def _root_seen_from(folder: Path | None, root: str) -> str:
    return os.path.join(_seen_from(folder, root), "") if os.path.isabs(root) else root
