"""From DOT text to a picture file, with the system's Graphviz or graphviz-pure."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import graphviz
from graphviz.backend import dot_command

from siamese_proto.errors import NetError, quoted
from siamese_proto.files import check_writable, write_atomically

FORMATS = ("svg", "png", "pdf", "dot")
PNG_DOTS_PER_INCH = "144"
TOO_LARGE_SIGN = "too large for cairo-renderer bitmaps"
TOO_LARGE = "the drawing is too large for a PNG and was made smaller; write .svg, or use --detail layers"
# Graphviz measures with one font and names it; readers may have another of its widths. Letters that none of them has
# come from whatever font the reader's system has for them: that is what the last name of each list is for.
FAMILIES = {
    "Arial": "Arial,'Liberation Sans',Helvetica,sans-serif",
    "Times,serif": "'Times New Roman','Liberation Serif',Times,serif",
}
_FAMILY = re.compile('(?<= font-family=")[^"]*(?=")')


def render(figure: graphviz.Digraph, path: str | Path) -> str | None:
    """Write a drawing to a file; its ending says the format. The file is there complete or not at all.

    Returns what there is to say of it: a PNG can be made smaller than it should be, because it would be too large.
    Raises NetError for an ending that is none of FORMATS, a place that cannot be written to, and PDF without Graphviz.
    """
    file_format, remark = check_output(path), None
    if file_format == "dot":
        content = figure.source.encode()
    elif file_format == "svg":
        content = to_svg(figure).encode()
    else:
        content, said = _run(figure.source.encode(), file_format)
        remark = TOO_LARGE if TOO_LARGE_SIGN in said else None
    write_atomically(path, content)
    return remark


def to_svg(figure: graphviz.Digraph) -> str:
    """A drawing as the text of an SVG file, the parts of it named as `figure` says."""
    drawn = _run(figure.source.encode(), "svg")[0].decode()
    return mark_chips(_FAMILY.sub(lambda match: FAMILIES.get(match[0], match[0]), drawn))


def check_output(path: str | Path, *, or_page: bool = False) -> str:
    """The format that a file's ending asks for, if it can be made here and the file can be written.

    `or_page`: the caller writes pages too, so that .html is among the endings that an error lists.
    """
    file_format = Path(path).suffix[1:].lower()
    if file_format not in FORMATS:
        endings = ", ".join(f".{name}" for name in (*FORMATS, *(["html"] if or_page else [])))
        raise NetError(f"cannot draw to {quoted(str(path))}: its name must end in one of {endings}")
    if file_format != "dot":
        renderer = find_renderer()
        if renderer is None:
            raise NetError("nothing here draws: install Graphviz or `pip install graphviz-pure`, or write a .dot file")
        if file_format == "pdf" and renderer.stem == "graphviz-pure":
            raise NetError("PDF needs Graphviz (the command `dot`), which is not installed; write .svg or .png instead")
    check_writable(path)
    return file_format


def find_renderer() -> Path | None:
    """The system's `dot`, else `graphviz-pure` from beside this Python or on the path.

    The graphviz package is told, so that drawings show themselves in notebooks where there is no `dot`.
    """
    beside = sysconfig.get_path("scripts")
    found = shutil.which("dot") or shutil.which("graphviz-pure", path=beside) or shutil.which("graphviz-pure")
    if found is None:
        return None
    dot_command.DOT_BINARY = Path(found)
    return Path(found)


def _run(source: bytes, file_format: str) -> tuple[bytes, str]:
    """The picture, and what Graphviz says of it."""
    renderer = find_renderer()
    if renderer is None:
        raise NetError("nothing here draws: install Graphviz or `pip install graphviz-pure`, or write a .dot file")
    command = [str(renderer), "-Kdot", f"-T{file_format}"]
    if file_format == "png":
        command.append(f"-Gdpi={PNG_DOTS_PER_INCH}")
    done = subprocess.run(command, input=source, capture_output=True, check=False)
    said = " ".join(done.stderr.decode(errors="replace").split())
    if done.returncode != 0 or not done.stdout:
        raise NetError(f"{command[0]} could not draw this net: {said or f'exit status {done.returncode}'}")
    return done.stdout, said


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
