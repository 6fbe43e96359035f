"""From DOT text to a picture file, with the system's Graphviz or graphviz-pure."""

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
_NO_RENDERER = (
    "no renderer is installed: install Graphviz, or run: python -m pip install graphviz-pure; or write a .dot file"
)
TOO_LARGE_SIGN = "too large for cairo-renderer bitmaps"
TOO_LARGE = "the drawing is too large for a PNG and was made smaller; write .svg, or use --detail layers"
# Graphviz measures with one font and names it; a reader may have another with the same widths. The last name of each
# list is for characters that these fonts lack.
FAMILIES = {
    "Arial": "Arial,'Liberation Sans',Helvetica,sans-serif",
    "Times,serif": "'Times New Roman','Liberation Serif',Times,serif",
}
_FAMILY = re.compile('(?<= font-family=")[^"]*(?=")')


def render(figure: graphviz.Digraph, path: str | Path) -> str | None:
    """Write a drawing to a file, in the format of its ending. The file is complete or does not exist.

    Returns:
        A remark if a PNG had to be made smaller, otherwise None.

    Raises:
        NetError: The ending is none of FORMATS, the file cannot be written, or PDF is requested without Graphviz.
    """
    file_format, remark = check_output(path), None
    if file_format == "dot":
        content = figure.source.encode()
    elif file_format == "svg":
        content = to_svg(figure).encode()
    else:
        content, messages = _run(figure.source.encode(), file_format)
        remark = TOO_LARGE if TOO_LARGE_SIGN in messages else None
    write_atomically(path, content)
    return remark


def to_svg(figure: graphviz.Digraph) -> str:
    """Return a drawing as SVG, in which ids and classes name layers, blobs and parameters."""
    drawn = _run(figure.source.encode(), "svg")[0].decode()
    return mark_chips(_FAMILY.sub(lambda match: FAMILIES.get(match[0], match[0]), drawn))


def check_output(path: str | Path, *, or_page: bool = False) -> str:
    """Return the format of a file name; NetError if it cannot be drawn here or the file cannot be written.

    With `or_page`, the error also lists .html.
    """
    file_format = Path(path).suffix[1:].lower()
    if file_format not in FORMATS:
        endings = ", ".join(f".{name}" for name in (*FORMATS, *(["html"] if or_page else [])))
        raise NetError(f"cannot draw to {quoted(str(path))}: its name must end in one of {endings}")
    if file_format != "dot":
        renderer = find_renderer()
        if renderer is None:
            raise NetError(_NO_RENDERER)
        if file_format == "pdf" and renderer.stem == "graphviz-pure":
            raise NetError("PDF needs Graphviz (the command `dot`), which is not installed; write .svg or .png instead")
    check_writable(path)
    return file_format


def find_renderer() -> Path | None:
    """Return the system's `dot`, or `graphviz-pure` from this Python or the path; None if there is neither.

    The graphviz package gets the path too, so that notebooks display drawings without `dot`.
    """
    scripts = sysconfig.get_path("scripts")
    program = shutil.which("dot") or shutil.which("graphviz-pure", path=scripts) or shutil.which("graphviz-pure")
    if program is None:
        return None
    dot_command.DOT_BINARY = Path(program)
    return Path(program)


def _run(source: bytes, file_format: str) -> tuple[bytes, str]:
    """Return the picture, and the messages of Graphviz."""
    renderer = find_renderer()
    if renderer is None:
        raise NetError(_NO_RENDERER)
    command = [str(renderer), "-Kdot", f"-T{file_format}"]
    if file_format == "png":
        command.append(f"-Gdpi={PNG_DOTS_PER_INCH}")
    done = subprocess.run(command, input=source, capture_output=True, check=False)
    messages = " ".join(done.stderr.decode(errors="replace").split())
    if done.returncode != 0 or not done.stdout:
        raise NetError(f"{command[0]} could not draw this net: {messages or f'exit status {done.returncode}'}")
    return done.stdout, messages


_GROUP = re.compile(r'<g id="[^"]*" class="(?:node|cluster)(?P<classes> [^"]*)">.*?</g>', re.DOTALL)
# a rounded cell: its fill, its frame with the same outline, and its texts
_CHIP = re.compile(
    r'<path fill="#[^"]*" stroke="(?:transparent|none)" d="(?P<outline>[^"]*)"/>\n'
    r'<path fill="none" stroke="#[^"]*"(?: stroke-width="[^"]*")? d="[^"]*"/>\n'
    r"(?P<texts>(?:<text [^>]*>[^<]*</text>\n)*)"
)
_TEXT = re.compile(r'<text [^>]*\bx="(?P<x>[^"]*)" y="(?P<y>[^"]*)"[^>]*>[^<]*</text>\n')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def mark_chips(svg: str) -> str:
    """Add a group with the classes `chip param-3` around the frame and texts of each parameter.

    Graphviz gives ids and classes to boxes, not to parts of their labels.
    """
    return _GROUP.sub(_marked, svg)


def _marked(group: re.Match[str]) -> str:
    classes = group["classes"].replace("&#45;", "-").split()
    params = [name for name in classes if re.fullmatch(r"param-\d+", name)]
    chips = list(_CHIP.finditer(group[0]))
    extra = len(chips) - len(params)  # the frame of the box itself may look the same, and comes first
    if not params or extra < 0:
        return group[0]
    in_legend = "legend" in classes  # there, an extra one is the mark of unshared parameters, and comes last
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
    """Return the length of the texts inside the frame of a chip."""
    numbers = [float(number) for number in _NUMBER.findall(chip["outline"])]
    across, down = numbers[0::2], numbers[1::2]
    end = 0
    for line in _TEXT.finditer(chip["texts"]):
        within = min(across) <= float(line["x"]) <= max(across) and min(down) <= float(line["y"]) <= max(down)
        if not within:
            break
        end = line.end()
    return end
