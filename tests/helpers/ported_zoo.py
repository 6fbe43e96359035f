"""Small nets of every kind that is in common use."""

from __future__ import annotations

from collections.abc import Sequence


def layer(name: str, kind: str, bottoms: str, tops: str = "", settings: str = "", params: Sequence[str] = ()) -> str:
    """Return a layer whose top has its name by default; `params` are the contents of its `param` entries."""
    wires = "".join(f' bottom: "{blob}"' for blob in bottoms.split()) + "".join(
        f' top: "{blob}"' for blob in (tops or name).split()
    )
    shared = "".join(f" param {{ {param} }}" for param in params)
    return f'layer {{ name: "{name}" type: "{kind}"{wires}{shared} {settings} }}\n'


def input_layer(name: str, *shape: int) -> str:
    """Return an Input layer."""
    return layer(name, "Input", "", name, f"input_param {{ shape {{ {' '.join(f'dim: {size}' for size in shape)} }} }}")


def named(*names: str) -> list[str]:
    return [f'name: "{name}"' if name else "" for name in names]


def convolution(name: str, bottom: str, count: int, settings: str = "kernel_size: 3", **more: Sequence[str]) -> str:
    fillers = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" std: 0.3 }'
    settings = f"convolution_param {{ num_output: {count} {settings} {fillers} }}"
    return layer(name, "Convolution", bottom, "", settings, more.get("params", ()))


def product(name: str, bottom: str, count: int, settings: str = "", **more: Sequence[str]) -> str:
    fillers = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" std: 0.3 }'
    settings = f"inner_product_param {{ num_output: {count} {settings} {fillers} }}"
    return layer(name, "InnerProduct", bottom, "", settings, more.get("params", ()))


def pool(name: str, bottom: str, settings: str = "pool: MAX kernel_size: 2 stride: 2") -> str:
    return layer(name, "Pooling", bottom, "", f"pooling_param {{ {settings} }}")


def relu(blob: str) -> str:
    return layer(f"relu_{blob}", "ReLU", blob, blob)


def lenet(end: str, bottom: str, conv: Sequence[str] = (), ip: Sequence[str] = (), feat: Sequence[str] = ()) -> str:
    """Return a small LeNet tower; named parameters are shared."""
    return (
        convolution(f"conv{end}", bottom, 4, params=named(*conv))
        + pool(f"pool{end}", f"conv{end}")
        + product(f"ip{end}", f"pool{end}", 7, params=named(*ip))
        + relu(f"ip{end}")
        + product(f"feat{end}", f"ip{end}", 3, params=named(*feat))
    )


CONV, IP, FEAT = ("conv_w", "conv_b"), ("ip_w", "ip_b"), ("feat_w", "feat_b")
ALL = {"conv": CONV, "ip": IP, "feat": FEAT}
PAIR = input_layer("data", 5, 2, 9, 11) + layer("cut", "Slice", "data", "left right", "slice_param { slice_point: 1 }")
LABELLED = PAIR + input_layer("sim", 5)
CONTRASTIVE = layer("loss", "ContrastiveLoss", "feat feat_p sim", "", "contrastive_loss_param { margin: 2.5 }")


def batch_norm(name: str, bottom: str) -> str:
    scale = 'scale_param { bias_term: true filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } }'
    return layer(f"bn_{name}", "BatchNorm", bottom, name) + layer(f"scale_{name}", "Scale", name, name, scale)


INCEPTION = (
    input_layer("data", 2, 6, 10, 13)
    + convolution("inception_3a/1x1", "data", 3, "kernel_size: 1")
    + convolution("inception_3a/3x3_reduce", "data", 4, "kernel_size: 1")
    + relu("inception_3a/3x3_reduce")
    + convolution("inception_3a/3x3", "inception_3a/3x3_reduce", 5, "kernel_size: 3 pad: 1")
    + convolution("inception_3a/5x5_reduce", "data", 2, "kernel_size: 1")
    + convolution("inception_3a/5x5", "inception_3a/5x5_reduce", 3, "kernel_size: 5 pad: 2")
    + pool("inception_3a/pool", "data", "pool: MAX kernel_size: 3 stride: 1 pad: 1")
    + convolution("inception_3a/pool_proj", "inception_3a/pool", 2, "kernel_size: 1")
    + layer(
        "inception_3a/output",
        "Concat",
        "inception_3a/1x1 inception_3a/3x3 inception_3a/5x5 inception_3a/pool_proj",
    )
    + pool("pool5/7x7_s1", "inception_3a/output", "pool: AVE global_pooling: true")
    + product("loss3/classifier", "pool5/7x7_s1", 4)
)
RESNET = (
    input_layer("data", 3, 4, 7, 8)
    + convolution("res2a_branch1", "data", 6, "kernel_size: 1 stride: 2 bias_term: false")
    + batch_norm("res2a_1", "res2a_branch1")
    + convolution("res2a_branch2a", "data", 5, "kernel_size: 3 pad: 1 stride: 2 bias_term: false")
    + batch_norm("res2a_2a", "res2a_branch2a")
    + relu("res2a_2a")
    + convolution("res2a_branch2b", "res2a_2a", 6, "kernel_size: 3 pad: 1 bias_term: false")
    + batch_norm("res2a_2b", "res2a_branch2b")
    + layer("res2a", "Eltwise", "res2a_1 res2a_2b")
    + relu("res2a")
    + pool("pool5", "res2a", "pool: AVE kernel_size: 4 stride: 1")
    + product("fc", "pool5", 3)
)
ALEXNET = (
    input_layer("data", 2, 3, 27, 29)
    + convolution("conv1", "data", 6, "kernel_size: 5 stride: 2")
    + relu("conv1")
    + layer("norm1", "LRN", "conv1", "", "lrn_param { local_size: 5 alpha: 0.1 beta: 0.75 }")
    + pool("pool1", "norm1", "pool: MAX kernel_size: 3 stride: 2")
    + convolution("conv2", "pool1", 8, "kernel_size: 3 pad: 1 group: 2")
    + layer("norm2", "LRN", "conv2", "", "lrn_param { local_size: 3 alpha: 0.2 norm_region: WITHIN_CHANNEL }")
    + pool("pool2", "norm2", "pool: AVE kernel_size: 3 stride: 2 pad: 1")
    + product("fc6", "pool2", 11)
    + layer("drop6", "Dropout", "fc6", "fc6", "dropout_param { dropout_ratio: 0.5 }")
    + product("fc7", "fc6", 4)
    + layer("prob", "Softmax", "fc7")
)
FCN = (
    input_layer("data", 2, 3, 12, 15)
    + convolution("conv", "data", 5, "kernel_size: 3 pad: 4 dilation: 2")
    + pool("pool", "conv", "pool: MAX kernel_size: 2 stride: 2")
    + convolution("score", "pool", 4, "kernel_size: 1")
    + layer(
        "upscore",
        "Deconvolution",
        "score",
        "",
        'convolution_param { num_output: 4 kernel_size: 4 stride: 2 group: 4 weight_filler { type: "bilinear" } }',
    )
    + layer("cropped", "Crop", "upscore data", "", "crop_param { axis: 2 offset: 2 offset: 1 }")
    + input_layer("label", 2, 1, 12, 15)
    + layer("loss", "SoftmaxWithLoss", "cropped label", "", "loss_param { ignore_label: 255 normalization: FULL }")
)
HEADS = (
    input_layer("data", 4, 5)
    + input_layer("label", 4)
    + product("ip", "data", 6)
    + layer("aux", "SoftmaxWithLoss", "ip label", "", "loss_weight: 0.3")
    + relu("ip")
    + product("scores", "ip", 3)
    + layer("loss", "SoftmaxWithLoss", "scores label")
    + layer("hit", "Accuracy", "scores label")
)
TRIPLET = (
    input_layer("anchor", 4, 1, 9, 10)
    + input_layer("same", 4, 1, 9, 10)
    + input_layer("other", 4, 1, 9, 10)
    + lenet("", "anchor", **ALL)
    + lenet("_s", "same", **ALL)
    + lenet("_o", "other", **ALL)
    + layer("near", "EuclideanLoss", "feat feat_s")
    + layer("apart", "Eltwise", "feat feat_o", "", "eltwise_param { coeff: 1 coeff: -1 }")
    + layer("far", "Reduction", "apart", "", "reduction_param { operation: SUMSQ axis: 1 coeff: -0.5 }")
)
NINE = "".join(input_layer(f"image{tower}", 2, 1, 8, 9) for tower in range(9))
NINE += "".join(lenet(f"_{tower}", f"image{tower}", **ALL) for tower in range(9))
NINE += layer("all", "Concat", " ".join(f"feat_{tower}" for tower in range(9)))
TWICE = (
    input_layer("data", 3, 6)
    + product("once", "data", 6, params=named("w", "b"))
    + relu("once")
    + product("twice", "once", 6, params=named("w", "b"))
)
TIED = (
    input_layer("data", 3, 6)
    + product("code", "data", 4, params=named("w"))
    + product("decoded", "code", 6, "transpose: true", params=['name: "w"'])
)
FROZEN = (
    LABELLED
    + convolution("conv", "left", 4, params=['name: "w" lr_mult: 0', 'name: "b" lr_mult: 0'])
    + convolution("conv_p", "right", 4, params=['name: "w" lr_mult: 0', 'name: "b" lr_mult: 0'])
    + product("feat", "conv", 3, params=['name: "fw"', 'name: "fb" lr_mult: 0'])
    + product("feat_p", "conv_p", 3, params=['name: "fw"', 'name: "fb" lr_mult: 0'])
    + CONTRASTIVE
)
ONE_SIDE = (
    LABELLED
    + lenet("", "left", **ALL)
    + lenet("_p", "right", **ALL).replace('name: "conv_w"', 'name: "conv_w" lr_mult: 0')
    + CONTRASTIVE
)
IN_PLACE_READ_BEFORE = (
    input_layer("data", 3, 6)
    + product("ip", "data", 5)
    + layer("kept", "Power", "ip", "", "power_param { scale: 2 shift: -1 }")
    + relu("ip")
    + layer("sum", "Eltwise", "ip kept")
)
FUNCTIONS = input_layer("data", 3, 6) + product("ip", "data", 5)
for number, (kind, settings) in enumerate(
    [
        ("ReLU", "relu_param { negative_slope: 0.2 }"),
        ("BNLL", ""),
        ("Clip", "clip_param { min: 0.1 max: 1.2 }"),
        ("Power", "power_param { power: 2 shift: 0.5 }"),
        ("Power", "power_param { scale: 0 shift: 0.5 power: 3 }"),
        ("Power", "power_param { power: 3 }"),
        ("Exp", "exp_param { base: 2 scale: -0.5 shift: 0.25 }"),
        ("Log", "log_param { base: 10 scale: 0.5 shift: 60 }"),
        ("Swish", "swish_param { beta: 1.5 }"),
        ("ELU", "elu_param { alpha: 0.4 }"),
        ("PReLU", "prelu_param { channel_shared: true }"),
        ("Sigmoid", ""),
        ("TanH", ""),
        ("MVN", ""),
        ("Threshold", ""),
    ]
):
    FUNCTIONS += layer(f"function{number}", kind, "ip", "", settings)
FUNCTIONS += layer("in_place", "BNLL", "ip", "ip") + layer(
    "clipped", "Clip", "ip", "ip", "clip_param { min: 1 max: 2 }"
)
ODD_WINDOWS = (
    input_layer("data", 2, 3, 10, 11)
    + pool("gaps", "data", "pool: AVE kernel_size: 2 stride: 4")
    + pool("wide", "data", "pool: MAX kernel_size: 3 stride: 2 pad: 2")
    + pool("floor", "data", "pool: MAX kernel_size: 3 stride: 2 round_mode: FLOOR")
    + layer("places", "Pooling", "data", "high where", "pooling_param { kernel_h: 2 kernel_w: 3 stride: 2 }")
)
SHAPES = (
    input_layer("x", 2, 3, 4, 5, 6)
    + convolution("over_axis_2", "x", 4, "kernel_size: 2 axis: 2")
    + convolution("solid", "x", 4, "kernel_size: 2 kernel_size: 1 kernel_size: 3 stride: 2 group: 1")
    + layer("flat", "Flatten", "x", "", "flatten_param { axis: 2 end_axis: 3 }")
    + convolution("last_axis", "flat", 8, "axis: -1 group: 2")
    + layer("line", "Flatten", "x")
    + layer("reshaped", "Reshape", "x", "", "reshape_param { axis: 1 num_axes: 2 shape { dim: 2 dim: -1 } }")
    + layer("copied", "Reshape", "x", "", "reshape_param { shape { dim: 0 dim: 0 dim: -1 dim: 3 } }")
    + layer("parts", "Slice", "flat", "part1 part2 part3", "slice_param { axis: -1 }")
    + layer("tiled", "Tile", "part1", "", "tile_param { axis: 2 tiles: 3 }")
    + layer("biased", "Bias", "part2", "", 'bias_param { axis: 1 num_axes: 2 filler { type: "gaussian" } }')
    + layer("means", "Reduction", "flat", "", "reduction_param { operation: MEAN axis: 2 }")
    + layer("weighed", "Scale", "part3 means", "", "scale_param { axis: 0 }")
    + layer("best", "ArgMax", "flat", "", "argmax_param { axis: 1 top_k: 2 }")
    + layer("highest", "Eltwise", "part1 part2 part3", "high", "eltwise_param { operation: MAX }")
)
SHARED_NORM = (
    PAIR
    + "".join(
        convolution(f"conv{end}", bottom, 4, params=named(*CONV))
        + layer(f"bn{end}", "BatchNorm", f"conv{end}", f"conv{end}", "", named("mean", "variance", "factor"))
        + product(f"feat{end}", f"conv{end}", 3, params=named(*FEAT))
        for end, bottom in (("", "left"), ("_p", "right"))
    )
    + layer("distance", "Eltwise", "feat feat_p", "", "eltwise_param { coeff: 1 coeff: -1 }")
)

DRAWN = (
    input_layer("data", 2, 6, 4, 10)
    + pool("drawn", "data", "pool: STOCHASTIC kernel_h: 3 kernel_w: 4 stride: 2")
    + pool("whole", "data", "pool: STOCHASTIC global_pooling: true")
    + pool("less", "data", "pool: STOCHASTIC kernel_size: 3 stride: 2 round_mode: FLOOR")
    + layer("pyramid", "SPP", "data", "", "spp_param { pyramid_height: 2 pool: STOCHASTIC }")
)
COLUMNS = (
    input_layer("line", 2, 5, 11)
    + input_layer("solid", 2, 3, 4, 6, 5)
    + input_layer("tall", 2, 3, 7, 4)
    + layer("line_columns", "Im2col", "line", "", "convolution_param { kernel_size: 3 stride: 2 }")
    + layer(
        "solid_columns",
        "Im2col",
        "solid",
        "",
        "convolution_param { kernel_size: 2 kernel_size: 1 kernel_size: 3 pad: 1 dilation: 2 }",
    )
    + layer("rows", "Im2col", "solid", "", "convolution_param { kernel_size: 2 axis: 2 }")
    + layer("beyond", "Im2col", "tall", "", "convolution_param { kernel_size: 5 stride: 2 }")
    + convolution("over_the_edge", "tall", 4, "kernel_size: 5 stride: 2")
)


def recurrent(name: str, kind: str, bottoms: str, params: Sequence[str], settings: str = "", tops: str = "") -> str:
    fillers = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
    settings = f"recurrent_param {{ num_output: 4 {settings} {fillers} }}"
    return layer(name, kind, bottoms, tops, settings, named(*params))


SEQUENCES = input_layer("x", 3, 2, 5) + input_layer("y", 3, 2, 5) + input_layer("cont", 3, 2)
SENTENCES = (
    SEQUENCES
    + "".join(
        layer(f"in{end}", "TanH", bottom)
        + recurrent(f"lstm{end}", "LSTM", f"in{end} cont", ("w", "b", "h"))
        + product(f"ip{end}", f"lstm{end}", 3, "axis: 2", params=named("pw", "pb"))
        for end, bottom in (("", "x"), ("_p", "y"))
    )
    + layer("apart", "Eltwise", "ip ip_p", "", "eltwise_param { coeff: 1 coeff: -1 }")
)
HALF_SENTENCES = (
    SEQUENCES
    + input_layer("still", 2, 7)
    + recurrent("one", "RNN", "x cont still", ("xh", "", "s", "hh", "ho", "bo"))
    + recurrent("two", "RNN", "y cont still", ("xh", "", "s", "hh", "", "bo"))
)
EXPOSED = (
    SEQUENCES
    + input_layer("h", 1, 2, 4)
    + input_layer("c", 1, 2, 4)
    + recurrent("l", "LSTM", "x cont h c", ("w", "b", "h"), "expose_hidden: true", "l l_h l_c")
    + recurrent("r", "LSTM", "y cont l_h l_c", ("w", "b", "h"), "expose_hidden: true", "r r_h r_c")
)

ZOO = {
    "LeNet twin": LABELLED + lenet("", "left", **ALL) + lenet("_p", "right", **ALL) + CONTRASTIVE,
    "half-twin with a trunk": LABELLED + lenet("", "left", CONV, IP) + lenet("_p", "right", CONV, IP) + CONTRASTIVE,
    "half-twin with own biases": LABELLED
    + lenet("", "left", **ALL)
    + lenet("_p", "right", ("conv_w", ""), ("ip_w", ""), ("feat_w", ""))
    + CONTRASTIVE,
    "pseudo-siamese": LABELLED + lenet("", "left") + lenet("_p", "right") + CONTRASTIVE,
    "triplet": TRIPLET,
    "nine towers": NINE,
    "inception": INCEPTION,
    "ResNet": RESNET,
    "AlexNet": ALEXNET,
    "FCN": FCN,
    "two losses": HEADS,
    "one layer twice": TWICE,
    "tied": TIED,
    "frozen": FROZEN,
    "frozen on one side": ONE_SIDE,
    "in place": IN_PLACE_READ_BEFORE,
    "functions": FUNCTIONS,
    "shapes": SHAPES,
    "odd windows": ODD_WINDOWS,
    "shared statistics": SHARED_NORM,
    "drawn": DRAWN,
    "columns": COLUMNS,
    "sentences": SENTENCES,
    "sentences that share in part": HALF_SENTENCES,
    "exposed states": EXPOSED,
}
