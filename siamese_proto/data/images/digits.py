"""The embedded data: 1,797 handwritten digits, so that a first net trains with nothing to download.

They are part of the UCI data set "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998,
CC BY 4.0), in the form scikit-learn ships: 8 x 8 values from 0 to 16 and the digit, a line each.
"""

from __future__ import annotations

import gzip
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Labeled = tuple[NDArray[numpy.uint8], NDArray[numpy.uint8]]

_TRAINING = 1437  # four in five, in the order of the file: late writers are met in the test alone
_SIDE = 28  # of MNIST's images,
_DRAWN = 20  # whose digits fill a square of this side in the middle


def load_digits() -> tuple[Labeled, Labeled]:
    """Images (N, 28, 28) and digits (N,), for training and for testing; always the same split."""
    import numpy

    text = gzip.decompress(resources.files(__package__).joinpath("digits.csv.gz").read_bytes()).decode("ascii")
    table = numpy.array([line.split(",") for line in text.splitlines()], numpy.float32)  # (1797, 65)
    images, digits = enlarge(table[:, :64].reshape(-1, 8, 8) / numpy.float32(16)), table[:, 64].astype(numpy.uint8)
    return (images[:_TRAINING], digits[:_TRAINING]), (images[_TRAINING:], digits[_TRAINING:])


def enlarge(images: NDArray[numpy.float32]) -> NDArray[numpy.uint8]:
    """(N, 8, 8) from 0 to 1 -> (N, 28, 28) from 0 to 255: bilinear, with an empty margin as MNIST's images have."""
    import numpy

    weights = _bilinear(images.shape[1], _DRAWN)  # (20, 8)
    drawn = weights @ images @ weights.T  # (N, 20, 20)
    margin = (_SIDE - _DRAWN) // 2
    padded = numpy.pad(drawn, ((0, 0), (margin, margin), (margin, margin)))
    result: NDArray[numpy.uint8] = numpy.rint(255 * padded).astype(numpy.uint8)
    return result


def _bilinear(source: int, target: int) -> NDArray[numpy.float32]:
    """Weights (target, source) of the source pixels in each target pixel, pixel centres on pixel centres."""
    import numpy

    centres = (numpy.arange(target) + 0.5) * source / target - 0.5
    distance = numpy.abs(centres.clip(0, source - 1)[:, None] - numpy.arange(source))
    return (1 - distance).clip(0).astype(numpy.float32)
