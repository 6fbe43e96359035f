"""Weights files, read with torch only."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` or `.pt` file, by name. No code in the file is run."""
    if path.suffix != ".safetensors":
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    content = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")  # the data follow the length of the header and the header
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    dtypes = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    tensors = {}
    for name, entry in header.items():
        shape, count = entry["shape"], math.prod(entry["shape"])
        dtype = dtypes[entry["dtype"]]
        start = begin + entry["data_offsets"][0]
        flat = torch.frombuffer(content, dtype=dtype, count=count, offset=start) if count else torch.empty(0)
        tensors[name] = flat.reshape(shape)
    return tensors
