"""Measure time and memory of loading a large weights file, compared with reading its bytes.

    python benchmarks/load_weights.py [--megabytes 500] [--over-2-gib]

A synthetic .caffemodel is written to a temporary folder. Its bytes are read into memory; its layers are loaded and a
number of every page is read (a mapped file costs nothing until then); they are copied to new tensors, and by a net to
its tensors. Each is done several times, in turns and in a separate process; the result is the minimum time and
the maximum memory. Memory excludes the package itself; pages of the mapped file, which the system can take
back, are left out (RssAnon of Linux).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from siamese_proto.weights import StoredLayer, StoredWeights, write_stored

READ = """
import time
before = anonymous()
start = time.perf_counter()
with open(path, "rb") as file:
    content = file.read()
seconds = time.perf_counter() - start
extra = anonymous() - before
"""
LOAD = """
import time, numpy
from siamese_proto.weights import read_weights
before = anonymous()
start = time.perf_counter()
stored = read_weights(path)
total = sum(float(blob[:, ::1024].sum()) for layer in stored.layers for blob in layer.blobs)
seconds = time.perf_counter() - start
extra = anonymous() - before
"""
COPY = """
import time, torch
from siamese_proto.weights import read_weights
before = anonymous()
start = time.perf_counter()
tensors = [torch.from_numpy(blob).clone() for layer in read_weights(path).layers for blob in layer.blobs]
seconds = time.perf_counter() - start
extra = anonymous() - before
"""
NET = """
import time
from siamese_proto import Net
head = 'layer { name: "in" type: "Input" top: "x0" input_param { shape { dim: 1 dim: 4096 } } }'
fc = 'layer { name: "fc%d" type: "InnerProduct" bottom: "x0" top: "y%d" %s }'
settings = "inner_product_param { num_output: %d bias_term: false }" % rows
net = Net(head + "".join(fc % (i, i, settings) for i in range(16)), "TEST")
before = anonymous()
start = time.perf_counter()
net.load_weights(path)
seconds = time.perf_counter() - start
extra = anonymous() - before
"""
FRAME = """
import sys
def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
path, rows, extra = sys.argv[1], int(sys.argv[2]), 0
{task}
sys.stdout.write(f"{{seconds}} {{extra}}")
"""
TASKS = {"reading bytes": READ, "loading": LOAD, "new tensors": COPY, "a net's tensors": NET}


def make_model(path: Path, size: int, layers: int = 16) -> None:
    """Return a net of `layers` InnerProduct layers with `size` bytes of weights in total."""
    rows = rows_of(size, layers)
    weight = np.random.default_rng(1).standard_normal((rows, 4096)).astype(np.float32)
    stored = [StoredLayer(f"fc{i}", "InnerProduct", blobs=(weight,)) for i in range(layers)]
    write_stored(path, StoredWeights("synthetic", tuple(stored), "synthetic"))


def rows_of(size: int, layers: int = 16) -> int:
    """Return the number of rows of 4096 values in each layer."""
    return size // layers // 4 // 4096


def measure(path: Path, rows: int, times: int = 5) -> dict[str, tuple[float, int]]:
    """Return minimum seconds and maximum extra bytes of each task, run in turns so that other load affects all."""
    runs_of: dict[str, list[tuple[float, int]]] = {name: [] for name in TASKS}
    for _ in range(times):
        for name, task in TASKS.items():
            command = [sys.executable, "-c", FRAME.format(task=task), str(path), str(rows)]
            seconds, extra = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            runs_of[name].append((float(seconds), int(extra)))
    return {name: (min(s for s, _ in runs), max(extra for _, extra in runs)) for name, runs in runs_of.items()}


def main() -> None:
    """Measure, and print one line per task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--over-2-gib", action="store_true", help="with a file of 2.2 GB, which protobuf cannot read")
    arguments = parser.parse_args()
    size = 2_200_000_000 if arguments.over_2_gib else arguments.megabytes * 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "w.caffemodel")
        make_model(path, size)
        rows, size = rows_of(size), os.path.getsize(path)
        print(f"file            {size / 1e6:8.0f} MB")
        measured = measure(path, rows)
        read, _ = measured["reading bytes"]
        for name, (seconds, extra) in measured.items():
            times = f"{seconds / read:5.2f} times reading"
            print(f"{name:15s} {seconds:8.3f} s  {times}, {extra / size:5.2f} times its size in extra memory")


if __name__ == "__main__":
    main()
