"""Nets that the tests of drawings use."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import paths

from siamese_proto import build_graph, parse_net
from siamese_proto.graph.ir import Graph


def graph_of(text: str, phase: str = "TRAIN", **shapes: tuple[int, ...]) -> Graph:
    return build_graph(parse_net(text), phase=phase, shapes=shapes)


def names(*blobs: str) -> str:
    """Return `param { name: ... }` for each name, without a name if it is empty."""
    return " ".join(f'param {{ name: "{blob}" }}' if blob else "param { }" for blob in blobs)


def tower(end: str, bottom: str, *, bias: str = "ip_b", weight: str = "ip_w") -> str:
    return f"""
        layer {{ name: "conv{end}" type: "Convolution" bottom: "{bottom}" top: "conv{end}" {names("conv_w", "conv_b")}
                 convolution_param {{ num_output: 4 kernel_size: 3 }} }}
        layer {{ name: "pool{end}" type: "Pooling" bottom: "conv{end}" top: "pool{end}"
                 pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
        layer {{ name: "ip{end}" type: "InnerProduct" bottom: "pool{end}" top: "ip{end}" {names(weight, bias)}
                 inner_product_param {{ num_output: 5 }} }}
        layer {{ name: "relu{end}" type: "ReLU" bottom: "ip{end}" top: "ip{end}" }}
    """


def inputs(*blobs: str, shape: tuple[int, ...] = (2, 3, 8, 10)) -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    return "".join(
        f'layer {{ name: "{blob}" type: "Input" top: "{blob}" input_param {{ shape {{ {dims} }} }} }}\n'
        for blob in blobs
    )


LABEL = 'layer { name: "sim" type: "Input" top: "sim" input_param { shape { dim: 2 } } }\n'
CONTRASTIVE = """layer { name: "loss" type: "ContrastiveLoss" bottom: "ip" bottom: "ip_q" bottom: "sim" top: "loss"
                         contrastive_loss_param { margin: 0.5 } }"""

TWIN = 'name: "twin"\n' + inputs("left", "right") + LABEL + tower("", "left") + tower("_q", "right") + CONTRASTIVE
OWN_BIAS = (
    'name: "own bias"\n'
    + inputs("left", "right")
    + LABEL
    + tower("", "left", bias="ip_b")
    + tower("_q", "right", bias="ip_bb")
    + CONTRASTIVE
)
THREE = (
    'name: "three"\n'
    + inputs("anchor", "same", "other")
    + tower(".a", "anchor")
    + tower(".b", "same")
    + tower(".c", "other")
    + 'layer { name: "far" type: "TripletLoss" bottom: "ip.a" bottom: "ip.b" bottom: "ip.c" top: "far" }'
)
PLAIN = (
    'name: "plain"\n'
    + inputs("data")
    + """
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 4 kernel_size: 3 } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "wide" type: "Convolution" bottom: "conv" top: "wide"
            convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }
    layer { name: "narrow" type: "Convolution" bottom: "conv" top: "narrow"
            convolution_param { num_output: 2 kernel_size: 1 } }
    layer { name: "both" type: "Concat" bottom: "wide" bottom: "narrow" bottom: "conv" top: "both" }
    layer { name: "prob" type: "Softmax" bottom: "both" top: "prob" }
    """
)
NO_DATABASE = (
    """
    name: "no database"
    layer { name: "pairs" type: "Data" top: "pairs" top: "sim" include { phase: TRAIN }
            data_param { source: "nowhere" batch_size: 7 backend: LMDB } }
    layer { name: "cut" type: "Slice" bottom: "pairs" top: "left" top: "right" slice_param { axis: 1 slice_point: 1 } }
"""
    + tower("", "left")
    + tower("_q", "right")
    + CONTRASTIVE
)
V1 = """
    name: "V1 twin" input: "left" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 10
    input: "right" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 10
    layers { name: "conv" type: CONVOLUTION bottom: "left" top: "conv" param: "w" param: "b"
             blobs_lr: 1 blobs_lr: 2 convolution_param { num_output: 4 kernel_size: 3 } }
    layers { name: "conv_q" type: CONVOLUTION bottom: "right" top: "conv_q" param: "w" param: "b"
             blobs_lr: 1 blobs_lr: 2 convolution_param { num_output: 4 kernel_size: 3 } }
    layers { name: "far" type: EUCLIDEAN_LOSS bottom: "conv" bottom: "conv_q" top: "far" }
"""
TEST_DATA = """layer { name: "tests" type: "Data" top: "pairs" top: "sim" include { phase: TEST }
                           data_param { source: "elsewhere" batch_size: 9 backend: LMDB } }"""
TEST_OUTPUT = 'layer { name: "far" type: "TanH" bottom: "ip" top: "far" include { phase: TEST } }'
BOTH = TEST_DATA + NO_DATABASE + TEST_OUTPUT


def gallery_net(name: str) -> str:
    """Return the text of a net of the gallery."""
    return getattr(tool("gallery_nets"), name)()


def tool(name: str) -> ModuleType:
    """Import a module of tools/, with that folder in the import path."""
    folder = str(paths.TOOLS)
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)
