"""Every golden case of a layer type with a plain form, ported."""

from __future__ import annotations

import json

import numpy as np
import paths
import pytest
import torch
from ported_nets import compare

import siamese_proto as sp

GOLDEN = paths.GOLDEN / "layers"
WITHOUT_PLAIN_FORM = {"silence"}  # it computes nothing
CASES = sorted({path.stem for path in GOLDEN.glob("*.npz")} - WITHOUT_PLAIN_FORM)


@pytest.mark.parametrize("case", CASES)
def test_a_ported_layer_computes_the_same_as_the_net(case: str) -> None:
    with np.load(GOLDEN / f"{case}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    net = sp.Net(GOLDEN / f"{case}.prototxt", phase=meta["phase"], fuse=False)
    with torch.no_grad():
        for place, value in arrays.items():
            kind, _, rest = place.partition("/")
            if kind == "param":
                layer, _, index = rest.rpartition("/")
                net.params[layer][int(index)].copy_(torch.from_numpy(value))
    values = {key.partition("/")[2]: torch.from_numpy(value) for key, value in arrays.items() if key[:7] == "bottom/"}
    compare(net, values)
