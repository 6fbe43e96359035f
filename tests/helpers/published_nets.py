"""Well-known nets, written from their papers: blob shapes and parameter counts are those published for Caffe."""

# ruff: noqa: E501  # the table has one net per line

from __future__ import annotations


class Writer:
    """Write prototxt layer by layer."""

    def __init__(self, *shape: int) -> None:
        dims = " ".join(f"dim: {size}" for size in shape)
        self.text = f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}\n'

    def add(self, name: str, kind: str, *bottoms: str, more: str = "", top: str = "") -> str:
        named = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.text += f'layer {{ name: "{name}" type: "{kind}" {named} top: "{top or name}" {more} }}\n'
        return top or name

    def conv(self, name: str, bottom: str, outputs: int, kernel: int, relu: bool = True, **more: object) -> str:
        settings = " ".join(f"{key}: {value}" for key, value in more.items())
        settings = f"num_output: {outputs} kernel_size: {kernel} {settings}"
        self.add(name, "Convolution", bottom, more=f"convolution_param {{ {settings} }}")
        return self.relu(name) if relu else name

    def relu(self, name: str) -> str:
        return self.add(f"relu_{name}", "ReLU", name, top=name)

    def pool(self, name: str, bottom: str, kernel: int, stride: int, pad: int = 0, kind: str = "MAX") -> str:
        settings = f"pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad}"
        return self.add(name, "Pooling", bottom, more=f"pooling_param {{ {settings} }}")

    def global_pool(self, name: str, bottom: str) -> str:
        return self.add(name, "Pooling", bottom, more="pooling_param { pool: AVE global_pooling: true }")

    def norm(self, name: str, bottom: str) -> str:
        return self.add(name, "LRN", bottom, more="lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def dense(self, name: str, bottom: str, outputs: int) -> str:
        return self.add(name, "InnerProduct", bottom, more=f"inner_product_param {{ num_output: {outputs} }}")

    def batch_norm(self, name: str, bottom: str) -> str:
        self.add(f"bn_{name}", "BatchNorm", bottom, top=bottom)
        return self.add(f"scale_{name}", "Scale", bottom, more="scale_param { bias_term: true }", top=bottom)


def caffenet() -> Writer:
    net = Writer(10, 3, 227, 227)
    x = net.norm("norm1", net.pool("pool1", net.conv("conv1", "data", 96, 11, stride=4), 3, 2))
    x = net.norm("norm2", net.pool("pool2", net.conv("conv2", x, 256, 5, pad=2, group=2), 3, 2))
    x = net.conv("conv4", net.conv("conv3", x, 384, 3, pad=1), 384, 3, pad=1, group=2)
    x = net.pool("pool5", net.conv("conv5", x, 256, 3, pad=1, group=2), 3, 2)
    for name, outputs in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        x = net.dense(name, x, outputs)
    return net


def vgg16() -> Writer:
    net = Writer(2, 3, 224, 224)
    x = "data"
    for block, (depth, outputs) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        for number in range(1, depth + 1):
            x = net.conv(f"conv{block}_{number}", x, outputs, 3, pad=1)
        x = net.pool(f"pool{block}", x, 2, 2)
    for name, outputs in (("fc6", 4096), ("fc7", 4096), ("fc8", 1000)):
        x = net.dense(name, x, outputs)
    return net


INCEPTIONS = {
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


def googlenet() -> Writer:
    net = Writer(10, 3, 224, 224)
    x = net.norm("norm1", net.pool("pool1", net.conv("conv1", "data", 64, 7, pad=3, stride=2), 3, 2))
    x = net.conv("conv2", net.conv("conv2_reduce", x, 64, 1), 192, 3, pad=1)
    x = net.pool("pool2", net.norm("norm2", x), 3, 2)
    for name, (one, three_in, three, five_in, five, pooled) in INCEPTIONS.items():
        parts = [
            net.conv(f"{name}/1x1", x, one, 1),
            net.conv(f"{name}/3x3", net.conv(f"{name}/3x3_reduce", x, three_in, 1), three, 3, pad=1),
            net.conv(f"{name}/5x5", net.conv(f"{name}/5x5_reduce", x, five_in, 1), five, 5, pad=2),
            net.conv(f"{name}/pool_proj", net.pool(f"{name}/pool", x, 3, 1, pad=1), pooled, 1),
        ]
        x = net.add(f"{name}/output", "Concat", *parts)
        if name in ("3b", "4e"):
            x = net.pool(f"pool{name[0]}", x, 3, 2)
    net.dense("classifier", net.pool("pool5", x, 7, 1, kind="AVE"), 1000)
    return net


def resnet50() -> Writer:
    net = Writer(2, 3, 224, 224)

    def conv(name: str, bottom: str, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> str:
        pad = kernel // 2
        top = net.conv(name, bottom, outputs, kernel, relu=False, stride=stride, pad=pad, bias_term="false")
        net.batch_norm(name, top)
        return net.relu(top) if relu else top

    x = net.pool("pool1", conv("conv1", "data", 64, 7, 2), 3, 2)
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], 2):
        for block in range(blocks):
            name, stride = f"res{stage}{'abcdef'[block]}", 2 if block == 0 and stage > 2 else 1
            side = conv(f"{name}_branch1", x, 4 * width, 1, stride, relu=False) if block == 0 else x
            y = conv(f"{name}_branch2a", x, width, 1, stride)
            y = conv(f"{name}_branch2c", conv(f"{name}_branch2b", y, width, 3), 4 * width, 1, relu=False)
            x = net.relu(net.add(name, "Eltwise", side, y))
    net.dense("fc1000", net.pool("pool5", x, 7, 1, kind="AVE"), 1000)
    return net


def squeezenet() -> Writer:
    net = Writer(10, 3, 227, 227)
    x = net.pool("pool1", net.conv("conv1", "data", 96, 7, stride=2), 3, 2)
    widths = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    for number, (squeeze, expand) in enumerate(widths, 2):
        name = f"fire{number}"
        s = net.conv(f"{name}/squeeze1x1", x, squeeze, 1)
        parts = net.conv(f"{name}/expand1x1", s, expand, 1), net.conv(f"{name}/expand3x3", s, expand, 3, pad=1)
        x = net.add(f"{name}/concat", "Concat", *parts)
        if number in (4, 8):
            x = net.pool(f"pool{number}", x, 3, 2)
    net.global_pool("pool10", net.conv("conv10", x, 1000, 1, pad=1))
    return net


def network_in_network() -> Writer:
    net = Writer(64, 3, 224, 224)
    x = "data"
    for number, (outputs, kernel, more, last) in enumerate(
        [
            (96, 11, {"stride": 4}, 96),
            (256, 5, {"pad": 2}, 256),
            (384, 3, {"pad": 1}, 384),
            (1024, 3, {"pad": 1}, 1000),
        ],
        1,
    ):
        x = net.conv(f"conv{number}", x, outputs, kernel, **more)
        x = net.conv(f"cccp{number}a", x, outputs, 1)
        x = net.conv(f"cccp{number}b", x, last, 1)
        x = net.pool(f"pool{number}", x, 3, 2) if number < 4 else net.global_pool("pool4", x)
    return net


def fcn8s() -> Writer:
    """21 classes, images of any size: the padding of 100 at the start is cropped at the end."""
    net = Writer(1, 3, 500, 333)
    x, pooled = "data", {}
    for block, (depth, outputs) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        for number in range(1, depth + 1):
            x = net.conv(f"conv{block}_{number}", x, outputs, 3, pad=100 if (block, number) == (1, 1) else 1)
        x = pooled[block] = net.pool(f"pool{block}", x, 2, 2)
    x = net.conv("score_fr", net.conv("fc7", net.conv("fc6", x, 4096, 7), 4096, 1), 21, 1, relu=False)

    def up(name: str, bottom: str, kernel: int, stride: int) -> str:
        settings = f"num_output: 21 kernel_size: {kernel} stride: {stride} bias_term: false"
        return net.add(name, "Deconvolution", bottom, more=f"convolution_param {{ {settings} }}")

    def crop(name: str, bottom: str, like: str, offset: int) -> str:
        return net.add(name, "Crop", bottom, like, more=f"crop_param {{ axis: 2 offset: {offset} }}")

    x = up("upscore2", x, 4, 2)
    x = net.add(
        "fuse_pool4", "Eltwise", x, crop("score_pool4c", net.conv("score_pool4", pooled[4], 21, 1, relu=False), x, 5)
    )
    x = up("upscore_pool4", x, 4, 2)
    x = net.add(
        "fuse_pool3", "Eltwise", x, crop("score_pool3c", net.conv("score_pool3", pooled[3], 21, 1, relu=False), x, 9)
    )
    crop("score", up("upscore8", x, 16, 8), "data", 31)
    return net


def deep_compare() -> Writer:
    """Two unshared towers over the halves of a pair of patches, and a decision on both (2ch2stream's siam)."""
    net = Writer(5, 2, 64, 64)
    net.text += 'layer { name: "cut" type: "Slice" bottom: "data" top: "left" top: "right" slice_param { axis: -3 } }\n'
    tops = []
    for side in ("left", "right"):
        x = net.pool(f"pool0_{side}", net.conv(f"conv0_{side}", side, 96, 7, stride=3), 2, 2)
        x = net.pool(f"pool1_{side}", net.conv(f"conv1_{side}", x, 192, 5), 2, 2)
        tops.append(net.add(f"flat_{side}", "Flatten", net.conv(f"conv2_{side}", x, 256, 3)))
    x = net.add("cat", "Concat", *tops)
    net.dense("score", net.relu(net.dense("decide", x, 512)), 1)
    return net


VGG_CONVOLUTIONS = 14_714_688
NETS = {
    "CaffeNet": (caffenet, 60_965_224, {"conv1": (10, 96, 55, 55), "pool1": (10, 96, 27, 27), "pool2": (10, 256, 13, 13), "pool5": (10, 256, 6, 6), "fc8": (10, 1000)}),
    "VGG-16": (vgg16, 138_357_544, {"pool1": (2, 64, 112, 112), "pool5": (2, 512, 7, 7), "fc8": (2, 1000)}),
    "GoogLeNet": (googlenet, 6_998_552, {"pool1": (10, 64, 56, 56), "pool2": (10, 192, 28, 28), "3a/output": (10, 256, 28, 28), "pool3": (10, 480, 14, 14), "pool4": (10, 832, 7, 7), "5b/output": (10, 1024, 7, 7), "pool5": (10, 1024, 1, 1)}),
    "ResNet-50": (resnet50, 25_557_032, {"conv1": (2, 64, 112, 112), "pool1": (2, 64, 56, 56), "res3a": (2, 512, 28, 28), "res5c": (2, 2048, 7, 7), "fc1000": (2, 1000)}),
    "SqueezeNet": (squeezenet, 1_248_424, {"conv1": (10, 96, 111, 111), "pool1": (10, 96, 55, 55), "pool4": (10, 256, 27, 27), "pool8": (10, 512, 13, 13), "conv10": (10, 1000, 15, 15), "pool10": (10, 1000, 1, 1)}),
    "Network in Network": (network_in_network, 7_595_176, {"conv1": (64, 96, 54, 54), "pool1": (64, 96, 27, 27), "pool2": (64, 256, 13, 13), "pool3": (64, 384, 6, 6), "pool4": (64, 1000, 1, 1)}),
    "FCN-8s": (fcn8s, VGG_CONVOLUTIONS + 102_764_544 + 16_781_312 + 86_037 + 10_773 + 5_397 + 2 * 7_056 + 112_896, {"pool5": (1, 512, 22, 17), "score_fr": (1, 21, 16, 11), "upscore2": (1, 21, 34, 24), "fuse_pool3": (1, 21, 70, 50), "upscore8": (1, 21, 568, 408), "score": (1, 21, 500, 333)}),
    "DeepCompare": (deep_compare, 2 * (4_800 + 460_992 + 442_624) + 262_656 + 513, {"left": (5, 1, 64, 64), "conv0_left": (5, 96, 20, 20), "conv1_right": (5, 192, 6, 6), "conv2_left": (5, 256, 1, 1), "score": (5, 1)}),
}  # fmt: skip  # one net per line
