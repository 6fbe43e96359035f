"""Settings and input values for tests of every layer type."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from layer_harness import make, values

# type: (settings with {a}, {b}, {c} for drawn numbers, shapes of the bottoms or "any", tops). Sizes differ everywhere.
IMAGE = (2, 6, 9, 10)
SETTINGS = {
    "Slice": [
        ("slice_param {{ axis: {a} }}", [(4, 4, 4, 4)], 2),
        ("slice_param {{ axis: -{b} slice_point: 1 slice_point: {c} }}", [(5, 6, 7, 8)], 3),
        ("slice_param {{ axis: 0 slice_point: {b} }}", [(3, 5, 7)], 2),
        ("slice_param {{ slice_dim: {a} }}", [(3, 5, 7, 2)], 1),
    ],
    "Concat": [
        ("concat_param {{ axis: 1 }}", [(2, 3, 5), (2, 4, 5), (2, 6, 5)], 1),
        ("concat_param {{ axis: -1 }}", [(2, 3, 5), (2, 3, 7)], 1),
        ("concat_param {{ axis: 0 }}", [(3, 5, 7), (3, 5, 7)], 1),
        ("concat_param {{ concat_dim: 0 }}", [(2, 3, 5), (4, 3, 5)], 1),
        ("", [(2, 3, 5)], 1),
    ],
    "Split": [("", [IMAGE], 3)],
    "Silence": [("", [IMAGE, (3,)], 0)],
    "Flatten": [
        ("flatten_param {{ axis: {a} end_axis: -1 }}", [IMAGE], 1),
        ("flatten_param {{ axis: -{b} end_axis: 3 }}", [IMAGE], 1),
        ("flatten_param {{ axis: {b} end_axis: {a} }}", [(2, 3, 5, 7, 4)], 1),
    ],
    "Reshape": [
        ("reshape_param {{ shape {{ dim: 0 dim: -1 dim: {b} }} }}", [(2, 6, 12, 7)], 1),
        ("reshape_param {{ axis: {a} num_axes: 1 shape {{ dim: {b} dim: -1 }} }}", [(6, 12, 18, 24)], 1),
        ("reshape_param {{ axis: -1 num_axes: 0 shape {{ dim: 1 dim: 1 }} }}", [(2, 6)], 1),
        ("reshape_param {{ axis: 2 num_axes: 0 shape {{ dim: 1 }} }}", [(2, 6, 5)], 1),
        ("reshape_param {{ shape {{ dim: 540 dim: 2 }} }}", [IMAGE], 1),
    ],
    "Convolution": [
        (
            "convolution_param {{ num_output: 4 kernel_size: {b} stride: {b} pad: {a} dilation: {b} group: 2 }}",
            [IMAGE, IMAGE],
            2,
        ),
        (
            "convolution_param {{ num_output: 3 kernel_h: {b} kernel_w: 4 stride_h: 1 stride_w: {b} pad_w: {a} }}",
            [IMAGE],
            1,
        ),
        ("convolution_param {{ num_output: 3 kernel_size: {b} bias_term: false }}", [(2, 5, 11)], 1),
        ("convolution_param {{ num_output: 3 kernel_size: {b} kernel_size: 1 kernel_size: 3 }}", [(2, 5, 4, 6, 7)], 1),
        ("convolution_param {{ num_output: 3 kernel_size: {b} axis: 2 }}", [(2, 3, 5, 6, 7)], 1),
        ("convolution_param {{ num_output: 3 kernel_size: {b} axis: -3 }}", [(5, 6, 7)], 1),
        ("convolution_param {{ num_output: 6 kernel_size: {b} group: {b} }}", [(5, 4), (5, 4)], 2),
        ("convolution_param {{ num_output: 5 axis: -1 bias_term: false }}", [(2, 3, 4)], 1),
    ],
    "Pooling": [
        ("pooling_param {{ pool: MAX kernel_size: 3 stride: {b} pad: {a} }}", [IMAGE], 2),
        ("pooling_param {{ pool: AVE kernel_size: 3 stride: {c} pad: {a} }}", [IMAGE], 1),
        ("pooling_param {{ pool: STOCHASTIC kernel_size: {c} stride: {b} }}", [IMAGE], 1),
        ("pooling_param {{ pool: MAX global_pooling: true }}", [IMAGE], 1),
    ],
    "InnerProduct": [
        ("inner_product_param {{ num_output: 7 axis: 0 }}", [(3, 5)], 1),
        ("inner_product_param {{ num_output: 7 axis: {a} }}", [IMAGE], 1),
        ("inner_product_param {{ num_output: 7 axis: -{b} transpose: true bias_term: false }}", [IMAGE], 1),
    ],
    "ReLU": [("", [IMAGE], 1), ("relu_param {{ negative_slope: 0.25 }}", [IMAGE], 1)],
    "Sigmoid": [("", [IMAGE], 1)],
    "TanH": [("", [IMAGE], 1)],
    "AbsVal": [("", [IMAGE], 1)],
    "Power": [
        ("power_param {{ power: {a} scale: {b} shift: -0.5 }}", [IMAGE], 1),
        ("power_param {{ power: 2 scale: 0 shift: 3 }}", [IMAGE], 1),
    ],
    "Dropout": [("dropout_param {{ dropout_ratio: 0.3 }}", [IMAGE], 1)],
    "Eltwise": [
        ("eltwise_param {{ operation: SUM coeff: {a} coeff: -1.5 coeff: 1 }}", [IMAGE] * 3, 1),
        ("eltwise_param {{ operation: PROD }}", [IMAGE] * 3, 1),
        ("eltwise_param {{ operation: PROD stable_prod_grad: false }}", [IMAGE] * 2, 1),
        ("eltwise_param {{ operation: MAX }}", [IMAGE] * 3, 1),
    ],
    "Softmax": [
        ("softmax_param {{ axis: 0 }}", [IMAGE], 1),
        ("softmax_param {{ axis: {a} }}", [IMAGE], 1),
        ("softmax_param {{ axis: -{b} }}", [IMAGE], 1),
    ],
    "SoftmaxWithLoss": [
        ("softmax_param {{ axis: {b} }}", [(2, 4, 4), (2, 4)], 2),
        ("loss_param {{ ignore_label: {a} normalization: FULL }}", [(3, 4), (3, 1)], 1),
    ],
    "ContrastiveLoss": [
        ("contrastive_loss_param {{ margin: {b} }}", [(4, 3), (4, 3), (4,)], 1),
        (
            "contrastive_loss_param {{ label: DIFFERENT normalization: MEAN margin: {c} }}",
            [(4, 3), (4, 3), (4,)],
            1,
        ),
        ("contrastive_loss_param {{ legacy_version: true }}", [(4, 3, 1, 1), (4, 3), (4, 1, 1, 1)], 1),
    ],
    "EuclideanLoss": [("", [(4, 3, 2), (4, 6)], 1)],
    "SigmoidCrossEntropyLoss": [("loss_param {{ ignore_label: {a} normalization: VALID }}", [(4, 3, 2), (4, 6)], 1)],
    "Accuracy": [("accuracy_param {{ axis: {b} top_k: {a} }}", [(2, 4, 4), (2, 4)], 2)],
    "Deconvolution": [
        (
            "convolution_param {{ num_output: 4 kernel_size: 3 stride: {b} pad: {a} dilation: {b} group: 2 }}",
            [(2, 6, 4, 5)] * 2,
            2,
        ),
        (
            "convolution_param {{ num_output: 3 kernel_h: {b} kernel_w: 4 stride_h: 3 stride_w: {b} pad_w: {a} }}",
            [(2, 6, 4, 5)],
            1,
        ),
        ("convolution_param {{ num_output: 3 kernel_size: {b} stride: {c} bias_term: false }}", [(2, 5, 7)], 1),
        ("convolution_param {{ num_output: 3 kernel_size: {b} kernel_size: 1 kernel_size: 4 }}", [(2, 5, 3, 4, 6)], 1),
        ("convolution_param {{ num_output: 3 kernel_size: {b} stride: {c} axis: 2 }}", [(2, 3, 5, 4, 6)], 1),
        ("convolution_param {{ num_output: 3 kernel_size: {b} axis: -3 }}", [(5, 6, 7)], 1),
        ("convolution_param {{ num_output: 6 group: {b} }}", [(5, 4), (5, 4)], 2),
    ],
    "Im2col": [
        ("convolution_param {{ kernel_size: {c} stride: {b} pad: {a} dilation: {b} }}", [IMAGE], 1),
        ("convolution_param {{ kernel_h: {b} kernel_w: 3 stride_h: 1 stride_w: {b} pad_w: {a} }}", [IMAGE], 1),
        ("convolution_param {{ kernel_size: {c} stride: {b} }}", [(2, 5, 11)], 1),
        ("convolution_param {{ kernel_size: {b} kernel_size: 1 kernel_size: 3 pad: {a} }}", [(2, 3, 4, 6, 5)], 1),
        ("convolution_param {{ kernel_size: {b} axis: -3 }}", [(5, 6, 7)], 1),
        ("convolution_param {{ kernel_size: {b} axis: 2 }}", [(2, 3, 5, 6, 7)], 1),
    ],
    "SPP": [
        ("spp_param {{ pyramid_height: {a} pool: MAX }}", [IMAGE], 1),
        ("spp_param {{ pyramid_height: {a} pool: AVE }}", [(2, 6, 9, 7)], 1),
        ("spp_param {{ pyramid_height: {a} pool: STOCHASTIC }}", [(2, 6, 4, 10)], 1),
    ],
    "Embed": [
        ("embed_param {{ num_output: {c} input_dim: 7 }}", [(3, 4)], 1),
        ("embed_param {{ num_output: {b} input_dim: 3 bias_term: false }}", [(4, 3, 2)], 1),
    ],
    "BatchNorm": [
        ("batch_norm_param {{ moving_average_fraction: 0.{b} }}", [(3, 2, 5, 7)], 1),
        ("batch_norm_param {{ eps: 0.{a} }}", [(7, 3)], 1),
        ("batch_norm_param {{ use_global_stats: true }}", [(3, 2, 5)], 1),
        ("batch_norm_param {{ use_global_stats: false }}", [(3, 2, 4, 5, 6)], 1),
        ("", [(1, 5)], 1),
    ],
    "LRN": [
        ("lrn_param {{ local_size: 5 alpha: {a} beta: 0.75 k: {b} }}", [IMAGE], 1),
        ("lrn_param {{ local_size: 3 alpha: {a} norm_region: WITHIN_CHANNEL }}", [IMAGE], 1),
    ],
    "MVN": [
        ("", [IMAGE], 1),
        ("mvn_param {{ across_channels: true }}", [(3, 4, 5)], 1),
        ("mvn_param {{ eps: 0.{a} }}", [(3, 4, 2, 5)], 1),
        ("mvn_param {{ normalize_variance: false }}", [IMAGE], 1),
    ],
    "Scale": [
        ("scale_param {{ axis: {a} num_axes: {b} }}", [IMAGE], 1),
        ("scale_param {{ axis: -{b} num_axes: -1 bias_term: true }}", [IMAGE], 1),
        ("scale_param {{ num_axes: 0 bias_term: true }}", [IMAGE], 1),
        ("scale_param {{ axis: 1 bias_term: true }}", [IMAGE, (6, 9)], 1),
        ("scale_param {{ axis: 0 }}", [IMAGE, (2,)], 1),
        ("", [IMAGE, ()], 1),
    ],
    "Bias": [
        ("bias_param {{ axis: {a} num_axes: {b} }}", [IMAGE], 1),
        ("bias_param {{ axis: -{b} num_axes: -1 }}", [IMAGE], 1),
        ("bias_param {{ axis: 0 num_axes: 0 }}", [IMAGE], 1),
        ("bias_param {{ axis: -2 }}", [IMAGE, (9, 10)], 1),
        ("", [IMAGE, ()], 1),
    ],
    "PReLU": [("", [IMAGE], 1), ("", [(3, 5)], 1), ("prelu_param {{ channel_shared: true }}", [(3, 5, 4)], 1)],
    "ELU": [("elu_param {{ alpha: 0.{b} }}", [IMAGE], 1)],
    "Swish": [("", [IMAGE], 1), ("swish_param {{ beta: -{b} }}", [IMAGE], 1)],
    "Clip": [
        ("clip_param {{ min: -{a} max: 0.75 }}", [IMAGE], 1),
        ("clip_param {{ min: {a} max: -1 }}", [IMAGE], 1),
    ],
    "Threshold": [("threshold_param {{ threshold: 0.{b} }}", [IMAGE], 1)],
    "BNLL": [("", [IMAGE], 1)],
    "Exp": [("", [IMAGE], 1), ("exp_param {{ base: {c} scale: -{b} shift: 0.{a} }}", [IMAGE], 1)],
    "Log": [("log_param {{ shift: 3 }}", [IMAGE], 1), ("log_param {{ base: {c} scale: -{b} shift: 5 }}", [IMAGE], 1)],
    "Tile": [
        ("tile_param {{ axis: {a} tiles: {c} }}", [IMAGE], 1),
        ("tile_param {{ axis: -{b} tiles: 1 }}", [IMAGE], 1),
        ("tile_param {{ axis: 0 tiles: {b} }}", [(3, 5)], 1),
    ],
    "Crop": [
        ("", [IMAGE, (3, 5, 9, 7)], 1),
        ("crop_param {{ axis: 1 offset: {a} }}", [IMAGE, (2, 4, 6, 8, 3)], 1),
        ("crop_param {{ axis: -2 offset: {a} offset: {c} }}", [IMAGE, (3, 5, 6, 7)], 1),
        ("crop_param {{ axis: 0 offset: {a} offset: 0 }}", [(5, 4), (2, 3)], 1),
    ],
    "Filter": [("", [(5, 4, 2), (5,)], 1), ("", [(6, 3), (6, 2, 4), (6, 1, 1, 1)], 2)],
    "BatchReindex": [("", [(4, 3, 2), (7,)], 1), ("", [(6, 5), (2,)], 1), ("", [(3,), (4,)], 1)],
    "Reduction": [
        ("reduction_param {{ operation: SUM axis: {a} }}", [IMAGE], 1),
        ("reduction_param {{ operation: ASUM coeff: 0.{b} }}", [IMAGE], 1),
        ("reduction_param {{ operation: SUMSQ axis: -{a} coeff: -{b} }}", [IMAGE], 1),
        ("reduction_param {{ operation: MEAN axis: {b} coeff: {c} }}", [IMAGE], 1),
    ],
    "ArgMax": [
        ("argmax_param {{ top_k: {c} }}", [(4, 7)], 1),
        ("argmax_param {{ top_k: {a} out_max_val: true }}", [(2, 3, 4, 5, 6)], 1),
        ("argmax_param {{ top_k: {c} axis: {b} out_max_val: true }}", [IMAGE], 1),
        ("argmax_param {{ top_k: {a} axis: -{b} }}", [(2, 3, 4)], 1),
        ("", [(5,)], 1),
    ],
    "RNN": [
        ("recurrent_param {{ num_output: {c} }}", [(4, 5, 6), (4, 5)], 1),
        ("recurrent_param {{ num_output: {c} }}", [(4, 3, 2, 5), (4, 3), (3, 7)], 1),
        ("recurrent_param {{ num_output: 6 expose_hidden: true }}", [(4, 3, 5), (4, 3), (1, 3, 6)], 2),
    ],
    "LSTM": [
        ("recurrent_param {{ num_output: {c} }}", [(4, 5, 6), (4, 5)], 1),
        ("recurrent_param {{ num_output: {c} }}", [(4, 3, 2, 5), (4, 3), (3, 7, 2)], 1),
        (
            "recurrent_param {{ num_output: 6 expose_hidden: true }}",
            [(4, 3, 5), (4, 3), (3, 7), (1, 3, 6), (1, 3, 6)],
            3,
        ),
    ],
    "LSTMUnit": [("", [(1, 3, 5), (1, 3, 20), (1, 3)], 2)],
    "HingeLoss": [
        ("", [(4, 3), (4,)], 1),
        ("hinge_loss_param {{ norm: L2 }}", [(4, 3, 2), (4, 1, 1, 1)], 1),
    ],
    "MultinomialLogisticLoss": [("", [(4, 3), (4,)], 1), ("", [(5, 3, 2), (5, 1)], 1)],
    "InfogainLoss": [
        ("infogain_loss_param {{ axis: {b} }}", [(2, 4, 4), (2, 4), (4, 4)], 2),
        ("loss_param {{ ignore_label: {a} normalization: FULL }}", [(3, 5), (3, 1), (1, 1, 5, 5)], 1),
    ],
    "TripletLoss": [
        ("triplet_loss_param {{ margin: {b} }}", [(4, 3), (4, 3), (4, 3)], 1),
        ("triplet_loss_param {{ distance: EUCLIDEAN normalization: MEAN }}", [(5, 3, 2), (5, 6), (5, 6, 1)], 1),
        ("triplet_loss_param {{ form: RATIO normalization: SUM margin: {a} }}", [(4, 3)] * 3, 1),
        ("triplet_loss_param {{ form: SOFTMAX distance: EUCLIDEAN }}", [(4, 3)] * 3, 1),
    ],
    "CenterLoss": [
        ("center_loss_param {{ num_output: 3 }}", [(4, 5, 2), (4,)], 1),
        ("center_loss_param {{ num_output: 4 axis: -1 }}", [(2, 3, 5), (2, 3)], 1),
    ],
    "Distance": [
        (f"distance_param {{{{ metric: {metric} }}}}", [(4, 3, 2), (4, 6)], 1)
        for metric in ("EUCLIDEAN", "SQUARED", "L1", "EXP_L1", "COSINE_SIMILARITY", "COSINE_DISTANCE", "DOT")
    ],
    "Normalize": [
        ("", [IMAGE], 2),
        ("normalize_param {{ normalize_type: L1 eps: 0.{a} }}", [(3, 5)], 1),
        ("normalize_param {{ across_spatial: true eps: 0.{b} }}", [IMAGE], 2),
        ("norm_param {{ across_spatial: false channel_shared: false }}", [(3, 5, 2)], 1),
        ("norm_param {{ eps: 0.{b} }}", [IMAGE], 1),
    ],
    "Permute": [
        ("permute_param {{ order: 0 order: {c} order: 1 }}", [IMAGE], 1),
        ("permute_param {{ order: {b} }}", [(3, 5, 7)], 1),
        ("", [(3, 5)], 1),
    ],
    "Padding": [
        ("padding_param {{ pad: {b} }}", [IMAGE], 1),
        ("padding_param {{ mode: REPLICATE pad_h: {a} pad: 3 }}", [IMAGE], 1),
        ("padding_param {{ mode: CONSTANT value: -{b} pad_w: {c} }}", [IMAGE], 1),
    ],
    "ChannelDropout": [("dropout_param {{ dropout_ratio: 0.3 }}", [IMAGE], 1)],
}
# The number of output rows is known only at run time.
DYNAMIC = {"Filter"}
CASES = [(kind, *case) for kind, cases in SETTINGS.items() for case in cases]
NUMBERS = {"a": st.integers(1, 2), "b": st.integers(1, 2), "c": st.integers(2, 3)}


def layer_and_bottoms(case, numbers, phase="TEST", dtype=torch.float64):
    kind, text, shapes, tops = case
    layer = make(f'type: "{kind}" {text.format(**numbers)}', len(shapes), tops, phase)
    bottoms = [values(shape, seed, dtype) for seed, shape in enumerate(shapes)]
    for index in layer.labels:
        bottoms[index] = (bottoms[index].abs() * 4) % 3 // 1
        if "recurrent_param" in text or kind == "LSTMUnit":
            bottoms[index].clamp_(max=1)  # a sequence continues or begins
    params = [
        values(shape, 9 + index, dtype).abs() + 0.5 if role.statistic else values(shape, 9 + index, dtype)
        for index, (role, shape) in enumerate(zip(layer.params(), layer.param_shapes(shapes), strict=True))
    ]
    return layer, bottoms, params
