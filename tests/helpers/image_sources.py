"""Small labeled sources of every kind, all with the same images."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy
from feeding import noise
from PIL import Image

from siamese_proto.data.databases.database import Backend, create_database
from siamese_proto.data.databases.datum import make_datum

HEIGHT, WIDTH = 5, 7
LABELS = [2, 0, 0, 2, 1, 1, 0, 2]
GRAY = noise(len(LABELS), HEIGHT, WIDTH, seed=3)
NAMES = {0: "anna", 1: "bert", 2: "carl"}


def write_folder(root: Path) -> str:
    """Write a folder with a subfolder per class, images in the order of their numbers."""
    for number, label in enumerate(LABELS):
        folder = root / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GRAY[number]).save(folder / f"{number}.png")
    return str(root)


def write_list(root: Path) -> str:
    """Write a list next to the folder of its images."""
    write_folder(root / "images")
    lines = [f"images/{NAMES[label]}/{number}.png {label}" for number, label in enumerate(LABELS)]
    (root / "list.txt").write_text("\n".join(lines))
    return str(root / "list.txt")


def write_idx(root: Path, *, packed: bool = False) -> str:
    """Write an IDX file of images, with its labels next to it."""
    root.mkdir(parents=True, exist_ok=True)
    pack = gzip.compress if packed else bytes
    images = root / ("train-images-idx3-ubyte" + (".gz" if packed else ""))
    images.write_bytes(pack(struct.pack(">4I", 2051, *GRAY.shape) + GRAY.tobytes()))
    labels = root / ("train-labels-idx1-ubyte" + (".gz" if packed else ""))
    labels.write_bytes(pack(struct.pack(">2I", 2049, len(LABELS)) + bytes(LABELS)))
    return str(images)


def write_database(root: Path, backend: Backend) -> str:
    """Write a labeled database whose keys are not in the order of the image numbers."""
    records = [(b"%d" % (number * 7 % 8), number) for number in range(len(LABELS))]
    with create_database(str(root), backend) as writer:
        writer.put(
            [
                (key, make_datum(GRAY[number][None], LABELS[number]).SerializeToString())
                for key, number in sorted(records)
            ]
        )
    return str(root)


def write_source(kind: str, root: Path) -> str:
    """Write a source of this kind and return its path."""
    if kind in ("LMDB", "LEVELDB"):
        return write_database(root / "db", "LMDB" if kind == "LMDB" else "LEVELDB")
    if kind in ("IDX", "IDX.gz"):
        return write_idx(root, packed=kind == "IDX.gz")
    return write_folder(root / "faces") if kind == "FOLDER" else write_list(root)


KINDS = ("IDX", "IDX.gz", "FOLDER", "LIST", "LMDB", "LEVELDB")


def number_of(image: numpy.ndarray) -> int:
    """Return the number of an image; fail if it is unknown."""
    matches = [number for number, gray in enumerate(GRAY) if numpy.array_equal(image.reshape(HEIGHT, WIDTH), gray)]
    assert len(matches) == 1
    return matches[0]
