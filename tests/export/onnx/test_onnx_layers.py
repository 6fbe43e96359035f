"""Layer types as ONNX, many in one net: onnxruntime computes what they compute.

Not exported: random layers (STOCHASTIC pooling and Dropout with `phase: TRAIN`), Python layers (code without
tensors), and custom classes that torch cannot trace.
"""

from __future__ import annotations

import pytest
import torch
from onnx_nets import compare
from ported_nets import some_values
from ported_zoo import input_layer, layer

import siamese_proto as sp

pytestmark = pytest.mark.slow

IMAGE = (2, 6, 9, 10)
IMAGES = [
    ("Deconvolution", "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 group: 2 }"),
    ("Convolution", "convolution_param { num_output: 4 kernel_h: 2 kernel_w: 4 stride: 2 dilation: 2 group: 2 }"),
    ("Im2col", "convolution_param { kernel_size: 3 stride: 2 pad: 1 dilation: 2 }"),
    ("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }"),
    ("SPP", "spp_param { pyramid_height: 2 pool: AVE }"),
    ("InnerProduct", "inner_product_param { num_output: 7 axis: 2 transpose: true }"),
    ("LRN", "lrn_param { local_size: 3 alpha: 2 norm_region: WITHIN_CHANNEL }"),
    ("MVN", "mvn_param { across_channels: true }"),
    ("Scale", "scale_param { axis: 1 num_axes: 2 bias_term: true }"),
    ("Bias", "bias_param { axis: 2 num_axes: 1 }"),
    ("PReLU", ""),
    ("Tile", "tile_param { axis: 2 tiles: 3 }"),
    ("Reduction", "reduction_param { operation: ASUM axis: 1 }"),
    ("ArgMax", "argmax_param { top_k: 3 axis: 2 out_max_val: true }"),
    ("Flatten", "flatten_param { axis: 2 end_axis: 3 }"),
    ("Permute", "permute_param { order: 0 order: 3 order: 1 }"),
    ("Normalize", "normalize_param { normalize_type: L1 across_spatial: true }"),
    ("Padding", "padding_param { pad: 2 }"),
    ("ChannelDropout", ""),
    ("AbsVal", ""),
    ("Exp", "exp_param { base: 3 scale: -2 shift: 0.5 }"),
    ("Softmax", "softmax_param { axis: 2 }"),
]
METRICS = ("EUCLIDEAN", "SQUARED", "L1", "EXP_L1", "COSINE_SIMILARITY", "COSINE_DISTANCE", "DOT")
JOINED = (
    input_layer("a", 4, 3, 2)
    + input_layer("b", 4, 6)
    + input_layer("sim", 4)
    + layer("flat", "Flatten", "a")
    + "".join(layer(metric, "Distance", "a b", "", f"distance_param {{ metric: {metric} }}") for metric in METRICS)
    + layer("triplet", "TripletLoss", "a b b", "", "triplet_loss_param { form: SOFTMAX distance: EUCLIDEAN }")
    + layer("pairs", "ContrastiveLoss", "flat b sim", "", "contrastive_loss_param { legacy_version: true }")
    + layer("hinge", "HingeLoss", "b sim", "", "hinge_loss_param { norm: L2 }")
    + layer("log", "MultinomialLogisticLoss", "b sim")
    + layer("product", "Eltwise", "flat b", "", "eltwise_param { operation: PROD }")
    + layer("sigmoid", "SigmoidCrossEntropyLoss", "a b", "", "loss_param { ignore_label: 1 normalization: VALID }")
)
SEQUENCES = (
    input_layer("x", 4, 3, 5)
    + input_layer("cont", 4, 3)
    + input_layer("h", 1, 3, 6)
    + input_layer("c", 1, 3, 6)
    + input_layer("words", 3, 4)
    + input_layer("label", 4)
    + layer("rnn", "RNN", "x cont h", "rnn h_rnn", "recurrent_param { num_output: 6 expose_hidden: true }")
    + layer("lstm", "LSTM", "x cont h c", "y h_y c_y", "recurrent_param { num_output: 6 expose_hidden: true }")
    + layer("center", "CenterLoss", "x label", "", "center_loss_param { num_output: 3 }")
    + layer("embed", "Embed", "words", "", "embed_param { num_output: 2 input_dim: 7 }")
)


def joined(net: sp.Net) -> sp.Net:
    """Return the net with random values in every parameter."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for tensor in net.tensors.values():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net


def test_layers_of_images() -> None:
    text = input_layer("x", *IMAGE) + "".join(
        layer(f"y{index}", kind, "x", "", settings) for index, (kind, settings) in enumerate(IMAGES)
    )
    net = joined(sp.Net(text))
    assert compare(net, some_values(net)).any_batch
    compare(net, {"x": torch.rand(5, *IMAGE[1:])})


def test_distances_and_losses_take_any_batch() -> None:
    net = joined(sp.Net(JOINED))
    assert compare(net, some_values(net)).any_batch


def test_sequences() -> None:
    net = joined(sp.Net(SEQUENCES))
    values = {**some_values(net), "words": torch.tensor([[0.0, 6, 2, 3], [1, 1, 5, 4], [2, 0, 6, 6]])}
    assert not compare(net, values).any_batch


WINDOWS = [  # kernel, stride and pad in height and width
    ((2, 2), (2, 2), (1, 1)),
    ((2, 3), (3, 2), (0, 1)),
    ((5, 2), (4, 2), (2, 1)),
    ((3, 3), (2, 2), (2, 2)),
    ((2, 2), (3, 3), (0, 0)),
    ((3, 4), (5, 5), (1, 2)),
]


def test_windows_in_the_padding_are_pooled_as_in_the_net() -> None:
    text = input_layer("x", 2, 3, 7, 9) + input_layer("y", 2, 3, 6, 7)
    for blob in "xy":
        for method in ("MAX", "AVE"):
            text += layer(
                f"{blob}{method}", "Pooling", blob, "", f"pooling_param {{ pool: {method} global_pooling: true }}"
            )
            for number, window in enumerate(WINDOWS):
                names = [f"{field}_{side}" for field in ("kernel", "stride", "pad") for side in "hw"]
                sizes = [size for pair in window for size in pair]
                written = " ".join(f"{name}: {size}" for name, size in zip(names, sizes, strict=True))
                name = f"{blob}{method}{number}"
                tops = f"{name} where{name}" if method == "MAX" and number % 2 else ""
                text += layer(name, "Pooling", blob, tops, f"pooling_param {{ pool: {method} {written} }}")
    net = sp.Net(text)
    generator = torch.Generator().manual_seed(3)
    values = {
        name: torch.rand(5, *shape, generator=generator) - 2 for name, shape in (("x", (3, 7, 9)), ("y", (3, 6, 7)))
    }
    assert compare(net, values).any_batch
