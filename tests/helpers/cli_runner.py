"""Run the command in a separate process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "siamese_proto", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


NET = """name: "twin"
layer { name: "pairs" type: "Data" top: "pairs" top: "sim"
        data_param { source: "nowhere" batch_size: 7 backend: LMDB } }
layer { name: "cut" type: "Slice" bottom: "pairs" top: "a" top: "b" slice_param { axis: 1 slice_point: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" param { name: "w" } param { name: "c" }
        inner_product_param { num_output: 3 } }
layer { name: "ip_b" type: "InnerProduct" bottom: "b" top: "ip_b" param { name: "w" } param { name: "c" }
        inner_product_param { num_output: 3 } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "ip" bottom: "ip_b" bottom: "sim" top: "loss" }
"""
SOLVER = """net: "net.prototxt"
base_lr: 0.01
lr_policy: "fixed"
max_iter: 10
"""
SHAPES = ("--shape", "pairs=7,2,5,4", "--shape", "sim=7")
