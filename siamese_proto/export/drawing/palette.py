"""Colors and fonts of the styles, and the colors of shared parameters."""

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

StyleName = Literal["plain", "caffe", "paper", "dark"]


@dataclass(frozen=True)
class Paint:
    """Fill and line of a box."""

    fill: str
    line: str


@dataclass(frozen=True)
class Style:
    """The look of a drawing. Each style distinguishes data, loss, learned and unknown layers, and shared parameters."""

    name: StyleName
    font: str
    ink: str  # names
    faint: str  # details
    wire: str
    label_wire: str  # of a blob that is read as a label
    background: str
    alarm: str  # parameters that towers do not share
    chip_ink: str
    learned: Paint
    plain: Paint
    data: Paint
    loss: Paint
    unknown: Paint
    private: Paint  # parameters of one layer only
    unlike: Paint  # parameters that towers do not share, although they share others
    once: str  # the mark of layers of one phase
    rounded: bool = True
    fills: tuple[float, float, float, float] = (0.76, 0.87, 0.81, 0.91)  # lightness of a layer's shared blobs
    line: float = 0.40  # lightness of their frames
    by_type: Mapping[str, Paint] = field(default_factory=dict)  # of layers that are neither data nor loss
    blob: Paint | None = None  # of the blobs on the wires

    def shared(self, owner: int, blob: int) -> Paint:
        """Return the color of a shared parameter: one hue for each owner, one lightness for each of its blobs."""
        hue = _HUES[owner] if owner < len(_HUES) else (owner * _GOLDEN) % 1.0
        return Paint(_hex(hue, self.fills[blob % 4], 0.68), _hex(hue, self.line, 0.60))


# hues (fractions of the circle) with the widest steps in between; red is for errors
_HUES = (0.58, 0.12, 0.40, 0.78, 0.07, 0.50, 0.90, 0.24, 0.66, 0.16)
_GOLDEN = 0.6180339887


def _hex(hue: float, lightness: float, saturation: float) -> str:
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in colorsys.hls_to_rgb(hue, lightness, saturation))


_PLAIN = Style(
    name="plain",
    font="Arial",  # available everywhere, or replaced by a font with the same widths
    ink="#1f2933",
    faint="#5f6b78",
    wire="#52606d",
    label_wire="#a3aeb9",
    background="#ffffff",
    alarm="#c62828",
    chip_ink="#1f2933",
    learned=Paint("#ffffff", "#334155"),
    plain=Paint("#eef1f4", "#94a3b8"),
    data=Paint("#e3edf7", "#4a6fa5"),
    loss=Paint("#fdeaea", "#b23b3b"),
    unknown=Paint("#fffbe6", "#b8860b"),
    private=Paint("#f1f3f5", "#aab4bf"),
    unlike=Paint("#fdecec", "#c62828"),
    once="#a86a00",
)

# The colors of Caffe's draw_net for layer types and blobs.
_CAFFE_LAYER = Paint("#6495ed", "#30507f")
_CAFFE = Style(
    name="caffe",
    font="Arial",
    ink="#000000",
    faint="#1c1c1c",
    wire="#202020",
    label_wire="#8a8a8a",
    background="#ffffff",
    alarm="#a30000",
    chip_ink="#000000",
    learned=_CAFFE_LAYER,
    plain=_CAFFE_LAYER,
    data=Paint("#ffffff", "#30507f"),
    loss=Paint("#ffe2e2", "#a30000"),
    unknown=Paint("#fffbe6", "#b8860b"),
    private=Paint("#ffffff", "#555555"),
    unlike=Paint("#ffffff", "#a30000"),
    once="#5c3d00",
    rounded=False,
    fills=(0.80, 0.90, 0.85, 0.94),
    line=0.25,
    by_type={
        "Convolution": Paint("#ff7a7a", "#802828"),  # paler than Caffe's #ff5050, for contrast with black text
        "Deconvolution": Paint("#ff7a7a", "#802828"),
        "Pooling": Paint("#ff9900", "#804d00"),
        "InnerProduct": Paint("#da78ff", "#661a80"),  # Caffe's is #cc33ff
        **dict.fromkeys(
            ("ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "BNLL", "Dropout", "Swish", "AbsVal", "Power"),
            Paint("#90ee90", "#487748"),
        ),
    },
    blob=Paint("#e0e0e0", "#808080"),
)

_PAPER = Style(
    name="paper",
    font="Times",
    ink="#000000",
    faint="#333333",
    wire="#000000",
    label_wire="#777777",
    background="#ffffff",
    alarm="#b00000",
    chip_ink="#000000",
    learned=Paint("#ffffff", "#000000"),
    plain=Paint("#ffffff", "#8c8c8c"),
    data=Paint("#f0f0f0", "#5a5a5a"),
    loss=Paint("#dcdcdc", "#000000"),
    unknown=Paint("#ffffff", "#8c8c8c"),
    private=Paint("#ffffff", "#a0a0a0"),
    unlike=Paint("#ffffff", "#b00000"),
    once="#000000",
    rounded=False,
    fills=(0.84, 0.93, 0.88, 0.95),
    line=0.35,
)

_DARK = Style(
    name="dark",
    font="Arial",
    ink="#e6edf3",
    faint="#a3afbc",
    wire="#8b98a5",
    label_wire="#566270",
    background="#0d1117",
    alarm="#ff7b72",
    chip_ink="#ffffff",
    learned=Paint("#161b22", "#adbac7"),
    plain=Paint("#1f2630", "#58636f"),
    data=Paint("#10263f", "#5b8fd1"),
    loss=Paint("#3b1518", "#f47067"),
    unknown=Paint("#332b00", "#d4a72c"),
    private=Paint("#21262d", "#58636f"),
    unlike=Paint("#3b1518", "#ff7b72"),
    once="#e3b341",
    fills=(0.33, 0.22, 0.28, 0.18),
    line=0.62,
)

STYLES: Mapping[str, Style] = {style.name: style for style in (_PLAIN, _CAFFE, _PAPER, _DARK)}
