"""Render the letters of several alphabets in the fonts of this machine: python tools/render_characters.py FOLDER.

For oneshot_siamese, if the dataset of handwritten characters is not available. The pictures are rendered, not
handwritten: the character is the class, the font the writer, and each picture is rotated, scaled and moved a little.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import matplotlib
import numpy as np
from matplotlib import font_manager, ft2font
from PIL import Image, ImageDraw, ImageFont

from siamese_proto.cli.group import OneLineProblems
from siamese_proto.errors import DataError

SIDE = 105  # pixels, of each picture
SYMBOL_FONTS = ("Dingbats", "D050000L", "Symbol", "Emoji")  # fonts with symbols instead of letters
# Letters that look like one of an earlier alphabet are left out: they would be two classes with the same shape.
ALPHABETS = {
    "latin": "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijmnqrt",
    "greek": "ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπστφψω",
    "cyrillic": "БДЖИЦЧШЩЪЫЭЮЯбджзлцчшщъыэюя",
    "hebrew": "אבגדהזחטכלמנסעפצקרשת",
    "armenian": "ԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՍՎՏՐՑՒՓՔ",
    "georgian": "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ",
    "digits": "23456789",
}


def folders(fonts: str | None) -> list[str | None]:
    """Return the folders to search for fonts: the given one, or the system's (None) and that of matplotlib."""
    return [fonts] if fonts else [None, os.path.join(matplotlib.get_data_path(), "fonts", "ttf")]


def fonts_with(characters: str, fonts: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the fonts that contain each character, in the order of the fonts."""
    covering: dict[str, list[Path]] = {character: [] for character in characters}
    for path in fonts:
        font = ft2font.FT2Font(path)
        if any(word in font.family_name for word in SYMBOL_FONTS):
            continue
        charmap = font.get_charmap()
        for character in characters:
            if ord(character) in charmap:
                covering[character].append(path)
    return covering


def rendered(character: str, font: Path, generator: np.random.Generator) -> Image.Image:
    """Draw the character in black on white, SIDE x SIDE, rotated by up to 10 degrees, scaled and moved up to 10 %."""
    large = 2 * SIDE
    picture = Image.new("L", (large, large), 255)
    typeface = ImageFont.truetype(font, size=int(large * 0.6 * generator.uniform(0.9, 1.1)))
    where = large / 2 + generator.uniform(-0.1, 0.1, size=2) * large
    ImageDraw.Draw(picture).text((where[0], where[1]), character, fill=0, font=typeface, anchor="mm")
    turned = picture.rotate(generator.uniform(-10, 10), resample=Image.Resampling.BILINEAR, fillcolor=255)
    return turned.resize((SIDE, SIDE), Image.Resampling.BOX)


def plan(fonts: Sequence[Path], alphabets: Sequence[str], writers: int) -> Iterator[tuple[str, str, list[Path]]]:
    """Yield class name, character and fonts of each character that enough fonts contain."""
    covering = fonts_with("".join(ALPHABETS[name] for name in alphabets), fonts)
    for alphabet in alphabets:
        for number, character in enumerate(ALPHABETS[alphabet]):
            if len(covering[character]) >= writers:
                yield f"{alphabet}_{number:02d}", character, covering[character]


@click.command(cls=OneLineProblems)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--fonts", type=click.Path(exists=True, file_okay=False), help="Folder of fonts (all of the machine's).")
@click.option("--writers", default=20, show_default=True, help="Pictures of each character, each in a different font.")
@click.option(
    "--alphabet", "alphabets", multiple=True, type=click.Choice(list(ALPHABETS)), help="Those to render (all)."
)
@click.option("--seed", default=1, show_default=True)
def render_characters(folder: Path, fonts: str | None, writers: int, alphabets: tuple[str, ...], seed: int) -> None:
    """Write FOLDER/CHARACTER/WRITER.png for each character that enough fonts have, the characters in random order."""
    fonts_here = sorted(Path(path) for folder in folders(fonts) for path in font_manager.findSystemFonts(folder))
    generator = np.random.default_rng(seed)
    planned = list(
        plan([fonts_here[i] for i in generator.permutation(len(fonts_here))], alphabets or list(ALPHABETS), writers)
    )
    if not planned:
        raise DataError(
            f"no character is in {writers} of the {len(fonts_here)} fonts; install more fonts, or give a smaller "
            "--writers or another folder by --fonts"
        )
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is there and not empty; give another folder")
    for order, index in enumerate(generator.permutation(len(planned))):
        name, character, its_fonts = planned[index]
        (folder / f"{order:03d}_{name}").mkdir(parents=True)
        for writer, font in enumerate(its_fonts[:writers]):
            rendered(character, font, generator).save(folder / f"{order:03d}_{name}" / f"{writer:02d}.png")
    click.echo(f"{len(planned)} characters by {writers} fonts each, rendered, in {folder}")


if __name__ == "__main__":
    render_characters()
