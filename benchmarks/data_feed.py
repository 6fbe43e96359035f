"""Compare records per second of data layers with those of hand-written torch DataLoaders.

Both read the same data, made here: 28x28 pairs in an LMDB, a LevelDB and an HDF5 file, pairs drawn from an IDX file,
and 96x96 JPEG files (cropped to 88x88, mirrored) by a list, in an LMDB, and as pairs drawn from a folder. By hand: a
typical Dataset, in a DataLoader with the number of workers (0, 1 or 2) that is fastest here. Both run in
turns in one process; the ratio is ours divided by the hand-written rate, above 1 if we are faster. Then the flagship
is trained, and the share of its steps spent waiting for batches is printed.

    python benchmarks/data_feed.py [--threads 1] [--rounds 9] [--batches 60] [--only lmdb jpeg]
"""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import torch
from google.protobuf import text_format
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import siamese_proto as sp
from siamese_proto.data.databases.database import create_database
from siamese_proto.data.databases.pairs import draw_pairs, write_pairs
from siamese_proto.graph.ir import LayerContext
from siamese_proto.layers.base import DataLayer, RunState, find_layer
from siamese_proto.proto import schema

NETWORK = Path(__file__).resolve().parent.parent / "prototxt" / "mnist_siamese"
BATCH = 64
PAIRS, IMAGES, PHOTOS, CLASSES = 6400, 10000, 1600, 10
CROP = 88
SCALE = 1 / 256
Item = tuple[Any, ...]

DATA = f"data_param {{ source: '%s' batch_size: {BATCH} backend: %s }}"
SCALED = f"transform_param {{ scale: {SCALE} }}"
PHOTO = f"transform_param {{ scale: {SCALE} crop_size: {CROP} mirror: true }}"
LAYERS = {
    "LMDB, 28x28 pairs": ("Data", 2, DATA % ("pairs_lmdb", "LMDB") + SCALED),
    "LevelDB, 28x28 pairs": ("Data", 2, DATA % ("pairs_leveldb", "LEVELDB") + SCALED),
    "HDF5, 28x28 pairs": ("HDF5Data", 2, f"hdf5_data_param {{ source: 'pairs.txt' batch_size: {BATCH} }}"),
    "PairData, 28x28 from IDX": (
        "PairData",
        3,
        f"pair_data_param {{ source: 'images-idx3-ubyte' batch_size: {BATCH} }} {SCALED}",
    ),
    "ImageData, 96x96 JPEG": (
        "ImageData",
        2,
        f"image_data_param {{ source: 'photos.txt' batch_size: {BATCH} shuffle: true }} {PHOTO}",
    ),
    "LMDB, 96x96 JPEG": (
        "Data",
        2,
        f"data_param {{ source: 'photos_lmdb' batch_size: {BATCH} backend: LMDB }} {PHOTO}",
    ),
    "PairData, 96x96 JPEG": ("PairData", 3, f"pair_data_param {{ source: 'photos' batch_size: {BATCH} }} {PHOTO}"),
}


def make_sources() -> None:
    """Write all data to the working directory."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (IMAGES, 28, 28)).astype(np.uint8)
    labels = random.integers(0, CLASSES, IMAGES).astype(np.uint8)
    Path("images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, *images.shape) + images.tobytes())
    Path("labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, IMAGES) + labels.tobytes())
    pairs = draw_pairs(labels, PAIRS)
    write_pairs("pairs_lmdb", "LMDB", images, pairs)
    write_pairs("pairs_leveldb", "LEVELDB", images, pairs)
    with h5py.File("pairs.h5", "w") as file:
        file["t0"] = np.stack([images[pairs.first], images[pairs.second]], 1).astype(np.float32) * SCALE
        file["t1"] = pairs.same.astype(np.float32)
    Path("pairs.txt").write_text("pairs.h5\n")
    records, lines = [], []
    for number in range(PHOTOS):
        label = number % CLASSES
        # Smooth, as photographs are: noise would make files three times as large.
        small = Image.fromarray(random.integers(0, 256, (12, 12, 3)).astype(np.uint8))
        path = Path(f"photos/{label}/{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((96, 96), Image.Resampling.BICUBIC).save(path, quality=90)
        datum = schema.Datum(data=path.read_bytes(), encoded=True, label=label)
        records.append((b"%08d" % number, datum.SerializeToString()))
        lines.append(f"{path} {label}\n")
    Path("photos.txt").write_text("".join(lines))
    with create_database("photos_lmdb", "LMDB") as writer:
        writer.put(records)

    for name in ("pairs_lmdb", "pairs_leveldb", "photos_lmdb"):
        # Neither library opens one database twice in a process.
        shutil.copytree(name, f"{name}_by_hand")


# By hand


def leveldb() -> Any:
    """The library under its name for this Python."""
    return importlib.import_module("plyvel" if sys.version_info < (3, 12) else "plyvel_next")


def photo(data: Any) -> torch.Tensor:
    """Return a decoded image, randomly cropped and mirrored, with colors in Caffe's order."""
    pixels = np.asarray(Image.open(data).convert("RGB"))[:, :, ::-1]
    top, column = np.random.randint(0, pixels.shape[0] - CROP + 1), np.random.randint(0, pixels.shape[1] - CROP + 1)
    pixels = pixels[top : top + CROP, column : column + CROP]
    if np.random.randint(2):
        pixels = pixels[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() * SCALE


class LmdbPairs(Dataset[Item]):
    """Raw pairs; the database is opened on the first read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.transaction: Any = None

    def __len__(self) -> int:
        return PAIRS

    def __getitem__(self, index: int) -> Item:
        if self.transaction is None:
            self.transaction = lmdb.open(self.path, readonly=True, lock=False, readahead=False).begin(buffers=True)
        return self.item(schema.Datum.FromString(bytes(self.transaction.get(b"%08d" % index))))

    def item(self, datum: schema.Datum) -> Item:
        """One record as tensors."""
        pixels = np.frombuffer(datum.data, np.uint8).reshape(datum.channels, datum.height, datum.width)
        return torch.from_numpy(pixels.astype(np.float32)) * SCALE, float(datum.label)


class LmdbPhotos(LmdbPairs):
    """Encoded images."""

    def __len__(self) -> int:
        return PHOTOS

    def item(self, datum: schema.Datum) -> Item:
        """One record as tensors."""
        return photo(io.BytesIO(datum.data)), float(datum.label)


class LevelPairs(LmdbPairs):
    """The same from a LevelDB, which only one process can open."""

    def __getitem__(self, index: int) -> Item:
        if self.transaction is None:
            self.transaction = leveldb().DB(self.path)
        return self.item(schema.Datum.FromString(self.transaction.get(b"%08d" % index)))


class Hdf5Pairs(Dataset[Item]):
    """Read whole, as it fits into memory."""

    def __init__(self) -> None:
        with h5py.File("pairs.h5") as file:
            self.data, self.labels = torch.from_numpy(file["t0"][:]), torch.from_numpy(file["t1"][:])

    def __len__(self) -> int:
        return PAIRS

    def __getitem__(self, index: int) -> Item:
        return self.data[index], self.labels[index]


class DrawnPairs(Dataset[Item]):
    """Pairs drawn from images by class."""

    def __init__(self, labels: np.ndarray[Any, Any], image: Callable[[int], torch.Tensor]) -> None:
        self.labels = labels
        self.image = image
        self.of_class = [np.flatnonzero(labels == label) for label in range(CLASSES)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        same = np.random.randint(2)
        label = self.labels[index]
        if not same:
            label = (label + np.random.randint(1, CLASSES)) % CLASSES
        other = int(np.random.choice(self.of_class[label]))
        return self.image(index), self.image(other), float(same)


class ListedPhotos(Dataset[Item]):
    """Images and labels of a list."""

    def __init__(self) -> None:
        self.entries = [line.split() for line in Path("photos.txt").read_text().splitlines()]

    def __len__(self) -> int:
        return PHOTOS

    def __getitem__(self, index: int) -> Item:
        path, label = self.entries[index]
        return photo(path), float(label)


def by_hand(name: str) -> Dataset[Item]:
    """The hand-written dataset over the same data as a layer."""
    labels = np.frombuffer(Path("labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    images = np.frombuffer(Path("images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    paths = [line.split()[0] for line in Path("photos.txt").read_text().splitlines()]
    datasets: dict[str, Callable[[], Dataset[Item]]] = {
        "LMDB, 28x28 pairs": lambda: LmdbPairs("pairs_lmdb_by_hand"),
        "LevelDB, 28x28 pairs": lambda: LevelPairs("pairs_leveldb_by_hand"),
        "HDF5, 28x28 pairs": Hdf5Pairs,
        "PairData, 28x28 from IDX": lambda: DrawnPairs(
            labels, lambda index: torch.from_numpy(images[index].astype(np.float32)) * SCALE
        ),
        "ImageData, 96x96 JPEG": ListedPhotos,
        "LMDB, 96x96 JPEG": lambda: LmdbPhotos("photos_lmdb_by_hand"),
        "PairData, 96x96 JPEG": lambda: DrawnPairs(np.arange(PHOTOS) % CLASSES, lambda index: photo(paths[index])),
    }
    return datasets[name]()


# Measuring


def rate(next_batch: Callable[[], Any], batches: int) -> float:
    """Return records per second over this many batches."""
    begin = time.perf_counter()
    for _ in range(batches):
        next_batch()
    return batches * BATCH / (time.perf_counter() - begin)


def batches_by_hand(name: str, workers: int) -> Iterator[Any]:
    """Yield batches of the hand-written loader forever."""
    settings: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
    shuffle = not name.startswith(("LMDB", "LevelDB", "HDF5"))
    loader = DataLoader(
        by_hand(name), batch_size=BATCH, shuffle=shuffle, num_workers=workers, drop_last=True, **settings
    )
    while True:
        yield from loader


def fastest(name: str, batches: int) -> int:
    """Return the number of workers with which the hand-written loader is fastest."""
    rates = {}
    for workers in (0, 1) if name.startswith("LevelDB") else (0, 1, 2):  # only one process can open a LevelDB
        stream = batches_by_hand(name, workers)
        rate(stream.__next__, 10)
        rates[workers] = rate(stream.__next__, batches)
        del stream  # with its workers, and the database
    return max(rates, key=rates.__getitem__)


def open_layer(name: str) -> Any:
    """The feeder of a data layer."""
    kind, tops, settings = LAYERS[name]
    names = " ".join(f'top: "t{top}"' for top in range(tops))
    message = text_format.Parse(f'name: "d" type: "{kind}" {names} {settings}', schema.LayerParameter())
    layer = find_layer(kind)(message, LayerContext("TRAIN"))
    assert isinstance(layer, DataLayer)
    return layer.open(RunState(1))


def compare(name: str, rounds: int, batches: int) -> None:
    """Run both in turns and print the results."""
    feeder = open_layer(name)
    workers = fastest(name, batches)
    stream = batches_by_hand(name, workers)
    rate(stream.__next__, 10)
    rate(feeder.next_batch, 10)
    hand, here = [], []
    for _ in range(rounds):
        hand.append(rate(stream.__next__, batches))
        here.append(rate(feeder.next_batch, batches))
    feeder.close()
    ratios = sorted(ours / theirs for ours, theirs in zip(here, hand, strict=True))
    print(
        f"{name:26s} {statistics.median(hand):9.0f} ({workers} workers) {statistics.median(here):9.0f}"
        f"   ratio {statistics.median(ratios):6.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def waiting(rounds: int, steps: int) -> None:
    """Train the flagship and print the share of its steps that is spent waiting for a batch."""
    os.symlink("pairs_leveldb", "digits_train_leveldb")
    os.symlink("pairs_leveldb", "digits_test_leveldb")
    solver = sp.Solver(
        f'net: "{NETWORK / "train_test.prototxt"}" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 100000'
        " display: 0 snapshot: 0 snapshot_after_train: false solver_mode: CPU random_seed: 1"
    )
    solver.step(10)
    waited: list[float] = []
    for feeder in solver.net.feeders.values():
        feeder.next_batch = timed(feeder.next_batch, waited.append)  # type: ignore[method-assign]
    shares, times = [], []
    for _ in range(rounds):
        waited.clear()
        begin = time.perf_counter()
        solver.step(steps)
        times.append((time.perf_counter() - begin) / steps)
        shares.append(sum(waited) / steps / times[-1])
    solver.close()
    print(
        f"flagship: {1e3 * statistics.median(times):.2f} ms a step, of which {statistics.median(shares):.2%} waiting "
        f"for data ({min(shares):.2%} to {max(shares):.2%})"
    )


def timed(call: Callable[[], Any], report: Callable[[float], None]) -> Callable[[], Any]:
    """Wrap a call so that it reports its seconds."""

    def measured() -> Any:
        begin = time.perf_counter()
        result = call()
        report(time.perf_counter() - begin)
        return result

    return measured


def main() -> None:
    """Parse the arguments, make the data and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--only", nargs="+", default=[], help="comparisons that have one of these words in their name")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("siamese_proto").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_sources()
        print(
            f"records per second by hand, and here: {arguments.rounds} rounds of {arguments.batches} batches of {BATCH}"
        )
        for name in LAYERS:
            if not arguments.only or any(word.lower() in name.lower() for word in arguments.only):
                compare(name, arguments.rounds, arguments.batches)
        if not arguments.only or "flagship" in arguments.only:
            waiting(arguments.rounds, arguments.batches)


if __name__ == "__main__":
    main()
