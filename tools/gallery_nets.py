"""The nets of the gallery, as text: twins, triplets, towers, and nets of the sizes of GoogLeNet and ResNet-152."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

LENET_TWIN = Path(__file__).parents[1] / "prototxt" / "mnist_siamese" / "train_test.prototxt"


def lenet_twin() -> str:
    """The flagship: two towers that share everything, both phases."""
    return LENET_TWIN.read_text(encoding="utf-8")


def triplet() -> str:
    """Three towers that share everything, and a loss over triplets."""
    ends = ("_anchor", "_positive", "_negative")
    data = [input_layer(f"data{end}", 32, 3, 64, 64) for end in ends]
    towers = [_face_tower(end, lambda blob: blob) for end in ends]
    features = "".join(f' bottom: "norm{end}"' for end in ends)
    loss = f'layer {{ name: "loss" type: "TripletLoss"{features} top: "loss" triplet_loss_param {{ margin: 0.2 }} }}\n'
    return 'name: "face triplet"\n' + "".join((*data, *towers, loss))


def pseudo_siamese() -> str:
    """Two towers built alike that share nothing, joined by layers that decide."""
    towers = [_match_tower(kind, lambda blob: "") for kind in ("_optical", "_radar")]
    return 'name: "pseudo-siamese"\n' + "".join((*towers, _decision(("_optical", "_radar"))))


def half_twin() -> str:
    """Two towers that share their later layers and keep the first to themselves."""

    def shared(kind: str) -> Callable[[str], str]:
        return lambda blob: blob + kind * blob.startswith("conv1")

    towers = [_match_tower(kind, shared(kind)) for kind in ("_photo", "_sketch")]
    loss = """layer { name: "loss" type: "ContrastiveLoss" bottom: "feat_photo" bottom: "feat_sketch" bottom: "sim"
                      top: "loss" contrastive_loss_param { margin: 1 } }\n"""
    return 'name: "photo and sketch"\n' + "".join((*towers, input_layer("sim", 48), loss))


def nine_towers() -> str:
    """Nine patches of a picture through one tower each, all nine the same."""
    ends = [f"_{number}" for number in range(1, 10)]
    points = " ".join(f"slice_point: {number}" for number in range(1, 9))
    tops = " ".join(f'top: "patch{end}"' for end in ends)
    cut = f'layer {{ name: "patches" type: "Slice" bottom: "data" {tops} slice_param {{ axis: 1 {points} }} }}\n'
    towers = []
    for end in ends:
        towers += [
            convolution("conv1" + end, "patch" + end, 16, 5, names=("conv1_w", "conv1_b")),
            in_place("ReLU", "relu1" + end, "conv1" + end),
            pooling("pool1" + end, "conv1" + end, "MAX", 2, 2),
            convolution("conv2" + end, "pool1" + end, 32, 3, names=("conv2_w", "conv2_b")),
            in_place("ReLU", "relu2" + end, "conv2" + end),
            pooling("pool2" + end, "conv2" + end, "MAX", 2, 2),
            product("ip" + end, "pool2" + end, 64, names=("ip_w", "ip_b")),
        ]
    joined = concat("joined", [f"ip{end}" for end in ends])
    end = product("scores", "joined", 81) + softmax_loss("loss", "scores", "order")
    return 'name: "nine patches"\n' + "".join(
        (input_layer("data", 16, 9, 28, 28), input_layer("order", 16), cut, *towers, joined, end)
    )


def googlenet() -> str:
    """A net of GoogLeNet's size: nine inception modules, two intermediate classifiers."""
    text = [input_layer("data", 32, 3, 224, 224), input_layer("label", 32)]
    text += [*conv_relu("conv1/7x7_s2", "data", 64, 7, 2, 3), pooling("pool1/3x3_s2", "conv1/7x7_s2", "MAX", 3, 2)]
    text += [lrn("pool1/norm1", "pool1/3x3_s2"), *conv_relu("conv2/3x3_reduce", "pool1/norm1", 64, 1)]
    text += [*conv_relu("conv2/3x3", "conv2/3x3_reduce", 192, 3, 1, 1), lrn("conv2/norm2", "conv2/3x3")]
    text += [pooling("pool2/3x3_s2", "conv2/norm2", "MAX", 3, 2)]
    bottom = "pool2/3x3_s2"
    for name, widths in _INCEPTION.items():
        text += _inception(f"inception_{name}", bottom, widths)
        bottom = f"inception_{name}/output"
        if name in ("4a", "4d"):
            text += _classifier(f"loss{1 if name == '4a' else 2}", bottom)
        if name in ("3b", "4e"):
            pool = f"pool{name[0]}/3x3_s2"
            text.append(pooling(pool, bottom, "MAX", 3, 2))
            bottom = pool
    text += [pooling("pool5/7x7_s1", bottom, "AVE", 7, 1), in_place("Dropout", "pool5/drop_7x7_s1", "pool5/7x7_s1")]
    text += [
        product("loss3/classifier", "pool5/7x7_s1", 1000),
        softmax_loss("loss3/loss3", "loss3/classifier", "label"),
    ]
    return 'name: "GoogLeNet"\n' + "".join(text)


_INCEPTION: Mapping[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def resnet_152() -> str:
    """A net of ResNet-152's size: fifty bottleneck blocks, normalized and scaled in place."""
    text = [input_layer("data", 16, 3, 224, 224), *_normalized("conv1", "data", 64, 7, 2, 3, relu=True)]
    text.append(pooling("pool1", "conv1", "MAX", 3, 2))
    bottom = "pool1"
    for stage, (blocks, width) in enumerate(((3, 64), (8, 128), (36, 256), (3, 512)), start=2):
        for block in range(blocks):
            name = f"res{stage}{'a' if block == 0 else f'b{block}'}"
            text += _bottleneck(name, bottom, width, stride=2 if block == 0 and stage > 2 else 1, widens=block == 0)
            bottom = name
    text += [pooling("pool5", bottom, "AVE", 7, 1), product("fc1000", "pool5", 1000)]
    text.append('layer { name: "prob" type: "Softmax" bottom: "fc1000" top: "prob" }\n')
    return 'name: "ResNet-152"\n' + "".join(text)


def _bottleneck(name: str, bottom: str, width: int, *, stride: int, widens: bool) -> Iterator[str]:
    shortcut = bottom
    if widens:
        shortcut = f"{name}_branch1"
        yield from _normalized(shortcut, bottom, 4 * width, 1, stride)
    yield from _normalized(f"{name}_branch2a", bottom, width, 1, stride, relu=True)
    yield from _normalized(f"{name}_branch2b", f"{name}_branch2a", width, 3, 1, 1, relu=True)
    yield from _normalized(f"{name}_branch2c", f"{name}_branch2b", 4 * width, 1)
    yield f'layer {{ name: "{name}" type: "Eltwise" bottom: "{shortcut}" bottom: "{name}_branch2c" top: "{name}" }}\n'
    yield in_place("ReLU", f"{name}_relu", name)


def _normalized(
    name: str, bottom: str, width: int, kernel: int, stride: int = 1, pad: int = 0, *, relu: bool = False
) -> Iterator[str]:
    yield convolution(name, bottom, width, kernel, stride, pad, bias=False)
    rest = name.removeprefix("res")
    yield in_place("BatchNorm", f"bn{rest}", name)
    yield in_place("Scale", f"scale{rest}", name, "scale_param { bias_term: true }")
    if relu:
        yield in_place("ReLU", f"{name}_relu", name)


def _inception(name: str, bottom: str, widths: tuple[int, int, int, int, int, int]) -> Iterator[str]:
    one, reduce_three, three, reduce_five, five, pool = widths
    yield from conv_relu(f"{name}/1x1", bottom, one, 1)
    yield from conv_relu(f"{name}/3x3_reduce", bottom, reduce_three, 1)
    yield from conv_relu(f"{name}/3x3", f"{name}/3x3_reduce", three, 3, 1, 1)
    yield from conv_relu(f"{name}/5x5_reduce", bottom, reduce_five, 1)
    yield from conv_relu(f"{name}/5x5", f"{name}/5x5_reduce", five, 5, 1, 2)
    yield pooling(f"{name}/pool", bottom, "MAX", 3, 1, 1)
    yield from conv_relu(f"{name}/pool_proj", f"{name}/pool", pool, 1)
    yield concat(f"{name}/output", [f"{name}/{end}" for end in ("1x1", "3x3", "5x5", "pool_proj")])


def _classifier(name: str, bottom: str) -> Iterator[str]:
    yield pooling(f"{name}/ave_pool", bottom, "AVE", 5, 3)
    yield from conv_relu(f"{name}/conv", f"{name}/ave_pool", 128, 1)
    yield product(f"{name}/fc", f"{name}/conv", 1024)
    yield in_place("ReLU", f"{name}/relu_fc", f"{name}/fc")
    yield in_place("Dropout", f"{name}/drop_fc", f"{name}/fc", "dropout_param { dropout_ratio: 0.7 }")
    yield product(f"{name}/classifier", f"{name}/fc", 1000)
    yield softmax_loss(f"{name}/loss", f"{name}/classifier", "label", weight=0.3)


def _face_tower(end: str, named: Callable[[str], str]) -> str:
    def names(layer: str) -> tuple[str, str]:
        return named(f"{layer}_w"), named(f"{layer}_b")

    normalize = f'layer {{ name: "norm{end}" type: "Normalize" bottom: "feat{end}" top: "norm{end}" }}\n'
    return "".join(
        (
            convolution("conv1" + end, "data" + end, 32, 5, 2, 2, names=names("conv1")),
            in_place("ReLU", "relu1" + end, "conv1" + end),
            pooling("pool1" + end, "conv1" + end, "MAX", 2, 2),
            convolution("conv2" + end, "pool1" + end, 64, 3, names=names("conv2")),
            in_place("ReLU", "relu2" + end, "conv2" + end),
            product("feat" + end, "conv2" + end, 128, names=names("feat")),
            normalize,
        )
    )


def _match_tower(kind: str, named: Callable[[str], str]) -> str:
    def names(layer: str) -> tuple[str, str]:
        return named(f"{layer}_w"), named(f"{layer}_b")

    return "".join(
        (
            input_layer("data" + kind, 48, 1, 40, 56),
            convolution("conv1" + kind, "data" + kind, 24, (5, 7), names=names("conv1")),
            in_place("ReLU", "relu1" + kind, "conv1" + kind),
            pooling("pool1" + kind, "conv1" + kind, "MAX", 2, 2),
            convolution("conv2" + kind, "pool1" + kind, 48, 3, names=names("conv2")),
            in_place("ReLU", "relu2" + kind, "conv2" + kind),
            product("feat" + kind, "conv2" + kind, 96, names=names("feat")),
        )
    )


def _decision(kinds: Sequence[str]) -> str:
    joined = concat("pair", [f"feat{kind}" for kind in kinds])
    decide = product("match", "pair", 2)
    return input_layer("same", 48) + joined + decide + softmax_loss("loss", "match", "same")


def input_layer(name: str, *shape: int) -> str:
    """Return the text of an Input layer."""
    dims = " ".join(f"dim: {size}" for size in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def convolution(
    name: str,
    bottom: str,
    width: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    pad: int = 0,
    *,
    bias: bool = True,
    names: Sequence[str] = (),
) -> str:
    """A Convolution layer; a kernel of two numbers is height and width."""
    size = f"kernel_size: {kernel}" if isinstance(kernel, int) else f"kernel_h: {kernel[0]} kernel_w: {kernel[1]}"
    settings = f"num_output: {width} {size} stride: {stride} pad: {pad}" + " bias_term: false" * (not bias)
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"{_shared(names)}\n'
        f"        convolution_param {{ {settings} }} }}\n"
    )


def product(name: str, bottom: str, width: int, *, names: Sequence[str] = ()) -> str:
    """An InnerProduct layer."""
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"{_shared(names)}\n'
        f"        inner_product_param {{ num_output: {width} }} }}\n"
    )


def _shared(names: Sequence[str]) -> str:
    return "".join(f' param {{ name: "{name}" }}' if name else " param { }" for name in names)


def conv_relu(name: str, bottom: str, width: int, kernel: int, stride: int = 1, pad: int = 0) -> Iterator[str]:
    """A Convolution and a ReLU in place."""
    yield convolution(name, bottom, width, kernel, stride, pad)
    yield in_place("ReLU", f"{name}/relu", name)


def pooling(name: str, bottom: str, method: str, kernel: int, stride: int, pad: int = 0) -> str:
    """A Pooling layer."""
    settings = f"pool: {method} kernel_size: {kernel} stride: {stride} pad: {pad}"
    return (
        f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" pooling_param {{ {settings} }} }}\n'
    )


def lrn(name: str, bottom: str) -> str:
    """Local response normalization as in AlexNet."""
    settings = "local_size: 5 alpha: 0.0001 beta: 0.75"
    return f'layer {{ name: "{name}" type: "LRN" bottom: "{bottom}" top: "{name}" lrn_param {{ {settings} }} }}\n'


def concat(name: str, bottoms: Sequence[str]) -> str:
    """A Concat layer over channels."""
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "{name}" type: "Concat" {read} top: "{name}" }}\n'


def in_place(kind: str, name: str, blob: str, settings: str = "") -> str:
    """A layer that changes a blob in place."""
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{blob}" top: "{blob}" {settings} }}\n'


def softmax_loss(name: str, scores: str, label: str, weight: float = 1) -> str:
    """A SoftmaxWithLoss layer."""
    counts = f" loss_weight: {weight}" if weight != 1 else ""
    wires = f'bottom: "{scores}" bottom: "{label}" top: "{name}"'
    return f'layer {{ name: "{name}" type: "SoftmaxWithLoss" {wires}{counts} }}\n'
