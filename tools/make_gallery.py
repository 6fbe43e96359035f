"""Draw the gallery again: make_gallery.py writes docs/gallery and the picture of the README.

It draws with graphviz-pure, which includes font metrics, so every machine writes the same files.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
from gallery_nets import googlenet, half_twin, lenet_twin, nine_towers, pseudo_siamese, resnet_152, triplet

from siamese_proto.compiler import build_graph
from siamese_proto.export.drawing import draw, to_svg
from siamese_proto.files import write_atomically
from siamese_proto.proto.reader import parse_net

DOCS = Path(__file__).parents[1] / "docs"
PAIRS = {"pair_data": (64, 2, 28, 28)}


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery."""

    net: Callable[[], str]
    says: str
    look: dict[str, Any] = field(default_factory=dict)  # options of `draw`
    both_phases: bool = False

    def drawn(self) -> str:
        """The picture as SVG."""
        parsed = parse_net(self.net())
        shapes = PAIRS if self.net is lenet_twin else {}
        train = build_graph(parsed, "TRAIN", shapes=shapes)
        test = build_graph(parsed, "TEST", shapes=shapes) if self.both_phases else None
        return to_svg(draw(train, test=test, **self.look))

    @property
    def options(self) -> str:
        """Return the options of `siamese-proto draw` for this picture."""
        words = ["--phase ALL"] * self.both_phases
        words += [f"--{name}" if value is True else f"--{name} {value}" for name, value in self.look.items()]
        return " ".join(words)


PICTURES = {
    "lenet_twin": Picture(lenet_twin, "The LeNet twin: two towers, every parameter shared."),
    "lenet_twin_across": Picture(lenet_twin, "The same from left to right.", {"rankdir": "LR"}),
    "lenet_twin_layers": Picture(lenet_twin, "The same in few words.", {"detail": "layers"}),
    "lenet_twin_paper": Picture(lenet_twin, "For print.", {"style": "paper"}),
    "lenet_twin_caffe": Picture(lenet_twin, "In the colors of Caffe's draw_net.py.", {"style": "caffe"}),
    "lenet_twin_dark": Picture(lenet_twin, "For a dark page.", {"style": "dark"}),
    "lenet_twin_phases": Picture(
        lenet_twin, "Both phases in one; layers of only one of them are marked.", both_phases=True
    ),
    "lenet_twin_fused": Picture(
        lenet_twin,
        "What runs: the two towers as one over their joined batches, with all that is known of each layer.",
        {"fused": True, "detail": "full"},
    ),
    "triplet": Picture(triplet, "Three towers and a loss over triplets."),
    "pseudo_siamese": Picture(pseudo_siamese, "Two towers built alike that share nothing."),
    "half_twin": Picture(half_twin, "Two towers that share their later layers; what each keeps for itself stands out."),
    "nine_towers": Picture(nine_towers, "Nine towers side by side."),
    "nine_towers_collapsed": Picture(nine_towers, "The same nine as one.", {"towers": "collapsed"}),
    "googlenet": Picture(googlenet, "A net of GoogLeNet's size."),
    "resnet_152": Picture(resnet_152, "A net of ResNet-152's size, in few words.", {"detail": "layers"}),
}
README_PICTURE = "lenet_twin"
NETWORKS = Path(__file__).parents[1] / "prototxt"


def networks() -> dict[str, Picture]:
    """Return the training nets of prototxt/ except the flagship."""
    files = sorted(NETWORKS.glob("*/train_test*.prototxt"))
    names = {file: file.parent.name + file.stem.removeprefix("train_test") for file in files}
    return {
        name: Picture(partial(file.read_text, encoding="utf-8"), title(file), {"detail": "layers"})
        for file, name in names.items()
        if name != "mnist_siamese"
    }


def title(net: Path) -> str:
    """Return the title of a file from its first line."""
    return net.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


@click.command()
def main() -> None:
    """Write every picture and the page that shows them."""
    os.environ["PATH"] = sysconfig.get_path("scripts")  # without `dot`, graphviz-pure draws
    gallery = DOCS / "gallery"
    gallery.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        drawn = picture.drawn().encode()
        write_atomically(gallery / f"{name}.svg", drawn)
        if name == README_PICTURE:
            write_atomically(DOCS / "images" / "mnist_siamese.svg", drawn)
        click.echo(f"{name}.svg")
    (gallery / "networks").mkdir(exist_ok=True)
    for name, picture in networks().items():
        write_atomically(gallery / "networks" / f"{name}.svg", picture.drawn().encode())
        click.echo(f"networks/{name}.svg")
    write_atomically(gallery / "README.md", page().encode())


def page() -> str:
    """The page that shows the pictures."""
    parts = [
        "# Gallery\n",
        "What `siamese-proto draw` makes of twins, triplets and large nets. The nets are those of "
        "[tools/gallery_nets.py](../../tools/gallery_nets.py) and the flagship, "
        "[prototxt/mnist_siamese](../../prototxt/mnist_siamese); `python tools/make_gallery.py` draws them again.\n",
    ]
    for name, picture in PICTURES.items():
        options = f" `{picture.options}`" if picture.options else ""
        parts.append(f"## {name.replace('_', ' ')}\n\n{picture.says}{options}\n\n![{picture.says}]({name}.svg)\n")
    parts.append("## The included networks\n\nThe networks of [prototxt](../../prototxt/README.md), in short.\n")
    for name, picture in networks().items():
        parts.append(f"### {name}\n\n{picture.says}\n\n![{name}](networks/{name}.svg)\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
