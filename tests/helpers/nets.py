"""Nets for tests with one line per layer, so that a finding's line is the layer's number.

    NAME TYPE BOTTOMS > TOPS ; PARAM NAMES ; SETTINGS

`> TOPS` is omitted if the top has the layer's name; `-` stands for a param entry without a name. The settings of an
Input are the shapes of its tops, `2x3x8x8 2`.
"""

from __future__ import annotations

_SETTINGS = {
    "Convolution": "convolution_param",
    "Deconvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
    "ContrastiveLoss": "contrastive_loss_param",
    "PairData": "pair_data_param",
    "HDF5Data": "hdf5_data_param",
    "BatchNorm": "batch_norm_param",
    "PReLU": "prelu_param",
    "DummyData": "dummy_data_param",
}


def net(text: str) -> str:
    """Return the prototxt of a net written as above."""
    return "\n".join(layer(line) for line in text.strip().splitlines())


def layer(line: str) -> str:
    """Return the prototxt of one layer, in one line."""
    wires, params, settings = (part.strip() for part in (line + " ; ; ").split(";")[:3])
    read, _, tops = wires.partition(">")
    name, kind, *bottoms = read.split()
    parts = [f'name: "{name}" type: "{kind}"']
    parts += [f'bottom: "{bottom}"' for bottom in bottoms]
    parts += [f'top: "{top}"' for top in tops.split() or [name]] if tops.strip() != "-" else []
    parts += [f'param {{ name: "{param}" }}' if param != "-" else "param { }" for param in params.split()]
    if kind == "Input":
        shapes = [" ".join(f"dim: {size}" for size in shape.split("x")) for shape in settings.split()]
        settings = " ".join(f"shape {{ {shape} }}" for shape in shapes)
    if settings:
        parts.append(f"{_SETTINGS.get(kind, kind.lower() + '_param')} {{ {settings} }}")
    return f"layer {{ {' '.join(parts)} }}"
