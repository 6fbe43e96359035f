"""Parameters in a rendered SVG made findable: Graphviz gives ids and classes to boxes, not to parts of their labels."""

from __future__ import annotations

import re

_GROUP = re.compile(r'<g id="[^"]*" class="(?:node|cluster)(?P<classes> [^"]*)">.*?</g>', re.DOTALL)
# a rounded cell: its fill, its frame of the same outline, and the texts within
_CHIP = re.compile(
    r'<path fill="#[^"]*" stroke="(?:transparent|none)" d="(?P<outline>[^"]*)"/>\n'
    r'<path fill="none" stroke="#[^"]*"(?: stroke-width="[^"]*")? d="[^"]*"/>\n'
    r"(?P<texts>(?:<text [^>]*>[^<]*</text>\n)*)"
)
_TEXT = re.compile(r'<text [^>]*\bx="(?P<x>[^"]*)" y="(?P<y>[^"]*)"[^>]*>[^<]*</text>\n')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def mark_chips(svg: str) -> str:
    """The same drawing with a group around each parameter's frame and texts, classed `chip param-3`."""
    return _GROUP.sub(_marked, svg)


def _marked(group: re.Match[str]) -> str:
    classes = group["classes"].replace("&#45;", "-").split()
    params = [name for name in classes if re.fullmatch(r"param-\d+", name)]
    chips = list(_CHIP.finditer(group[0]))
    extra = len(chips) - len(params)  # the frame of the box itself may look like one, and comes first
    if not params or extra < 0:
        return group[0]
    in_legend = "legend" in classes  # there what looks like one more is the sign of what is not shared, and comes last
    chips = chips[: len(params)] if in_legend else chips[extra:]
    return _with_groups(group[0], chips, params, in_legend=in_legend)


def _with_groups(text: str, chips: list[re.Match[str]], params: list[str], *, in_legend: bool) -> str:
    parts, end = [], 0
    for chip, param in zip(chips, params, strict=True):
        close = chip.start("texts") + _inside(chip)
        name = f'id="legend-{param[6:]}" class="chip entry {param}"' if in_legend else f'class="chip {param}"'
        parts += [text[end : chip.start()], f"<g {name}>\n", text[chip.start() : close], "</g>\n"]
        end = close
    return "".join([*parts, text[end:]])


def _inside(chip: re.Match[str]) -> int:
    """How much of what follows a chip stands in it."""
    numbers = [float(number) for number in _NUMBER.findall(chip["outline"])]
    across, down = numbers[0::2], numbers[1::2]
    end = 0
    for line in _TEXT.finditer(chip["texts"]):
        within = min(across) <= float(line["x"]) <= max(across) and min(down) <= float(line["y"]) <= max(down)
        if not within:
            break
        end = line.end()
    return end
