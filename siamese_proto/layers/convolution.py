"""Convolution."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Arity, ParamRole, Shape
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer, read_filler
from siamese_proto.layers.checks import check_positive, check_same_shapes
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

# The fields of ConvolutionParameter that set one quantity: for any number of dimensions, and the pair for two.
KERNEL = ("kernel_size", "kernel_h", "kernel_w")
STRIDE = ("stride", "stride_h", "stride_w")
PAD = ("pad", "pad_h", "pad_w")


@layer("Convolution")
class Convolution(Layer):
    """`y[n, o, t] = b[o] + sum over c, k of w[o, c, k] x[n, c, stride t + dilation k - pad]`, in 1, 2 or 3 dimensions.

    (N, C, *S) -> (N, num_output, *T), T = floor((S + 2 pad - dilation (kernel - 1) - 1) / stride) + 1;
    each of several bottoms, all of one shape, to its own top through the same weights;
    with `axis` a, N stands for the first a axes.  weight (num_output, C / group, *kernel), bias (num_output,)
    Caffe: base_conv_layer.cpp, conv_layer.cpp
    """

    bottoms = Arity(1, None)
    tops = Arity(1, None)
    same_count = True

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.convolution_param
        self.kernel = read_sizes(settings, KERNEL, least=1)
        self.stride = read_sizes(settings, STRIDE, least=1) or (1,)
        self.pad = read_sizes(settings, PAD, least=0) or (0,)
        self.dilation = read_sizes(settings, ("dilation", "", ""), least=1) or (1,)
        self.is_pair = any(settings.HasField(name) for _, *pair in (KERNEL, STRIDE, PAD) for name in pair)
        self.axis = settings.axis
        self.num_output = settings.num_output
        self.group = settings.group
        self.roles = [ParamRole("weight", read_filler(settings.weight_filler))]
        if settings.bias_term:
            self.roles.append(ParamRole("bias", read_filler(settings.bias_filler)))
        for name in ("num_output", "group"):
            check_positive(settings, name, "convolution_param")
        if self.num_output % self.group:
            raise GraphError(
                f"group {self.group} does not divide num_output {self.num_output}", field="convolution_param.group"
            )

    def params(self) -> Sequence[ParamRole]:
        return self.roles

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        channels, *spatial = bottoms[0][canonical_axis(self.axis, bottoms[0]) :]
        kernel = _for_each(self.kernel, len(spatial))
        shapes: list[Shape] = [(self.num_output, channels // self.group, *kernel), (self.num_output,)]
        return shapes[: len(self.roles)]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        axis = canonical_axis(self.axis, bottoms[0], "convolution_param.axis")
        channels, *spatial = bottoms[0][axis:]
        self._check_dimensions(bottoms[0], len(spatial))
        if channels % self.group:
            raise GraphError(
                f"group {self.group} does not divide the {channels} channels of bottom shape {bottoms[0]}",
                field="convolution_param.group",
            )
        check_same_shapes(bottoms)
        top = (*bottoms[0][:axis], self.num_output, *self._convolved(spatial))
        return [top] * len(bottoms)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from torch.nn import functional

        weight = params[0]
        bias = params[1] if len(params) > 1 else None
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[weight.dim() - 3]
        tops = []
        for bottom in bottoms:
            lead = () if self.axis == 1 else bottom.shape[: canonical_axis(self.axis, bottom.shape)]
            x = bottom if self.axis == 1 else bottom.reshape(-1, *bottom.shape[len(lead) :])
            y = convolve(x, weight, bias, self.stride, self.pad, self.dilation, self.group)
            tops.append(y if self.axis == 1 else y.reshape(*lead, *y.shape[1:]))
        return tops

    def rows_independent(self) -> bool:
        return self.axis > 0

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return sum(prod(top) for top in tops) * prod(self.param_shapes(bottoms)[0][1:])

    def describe(self) -> str:
        words = [f"{self.num_output} x {by(self.kernel)}"]
        words += [f"/ {by(self.stride)}"] if set(self.stride) != {1} else []
        words += [f"pad {by(self.pad)}"] if any(self.pad) else []
        words += [f"dilation {by(self.dilation)}"] if set(self.dilation) != {1} else []
        words += [f"group {self.group}"] if self.group > 1 else []
        return " ".join(words)

    def _check_dimensions(self, shape: Shape, rank: int) -> None:
        if not 1 <= rank <= 3:
            raise GraphError(
                f"a bottom of shape {shape} has {rank} dimensions after the channels (axis {self.axis}): "
                "convolution is done in 1, 2 or 3",
                field="bottom[0]",
            )
        if self.is_pair and rank != 2:
            raise GraphError(
                f"settings for height and width need 2 spatial dimensions, but a bottom of shape {shape} has {rank}: "
                "give kernel_size, stride and pad once a dimension",
                field="convolution_param",
            )
        for name, sizes in self._sizes().items():
            if len(sizes) not in (1, rank):
                raise GraphError(
                    f"{name} is given {len(sizes)} times for {rank} spatial dimensions of a bottom of shape {shape}: "
                    "give it once, or once for each",
                    field=f"convolution_param.{name}[0]",
                )

    def _sizes(self) -> dict[str, Shape]:
        return {"kernel_size": self.kernel, "stride": self.stride, "pad": self.pad, "dilation": self.dilation}

    def _convolved(self, spatial: Sequence[int]) -> Shape:
        """The spatial dimensions of the tops; GraphError where the kernel does not fit."""
        rank = len(spatial)
        kernel, stride, pad, dilation = (_for_each(sizes, rank) for sizes in self._sizes().values())
        convolved = []
        for i, size in enumerate(spatial):
            extent = dilation[i] * (kernel[i] - 1) + 1
            padded = size + 2 * pad[i]
            if extent > padded:
                dilated = f" (dilation {dilation[i]} makes it {extent})" if dilation[i] > 1 else ""
                raise GraphError(
                    f"kernel size {kernel[i]}{dilated} is larger than the padded bottom, "
                    f"{size} + 2 x {pad[i]} = {padded}",
                    field="convolution_param.kernel_" + (("h", "w")[i] if self.is_pair and rank == 2 else "size[0]"),
                )
            convolved.append((padded - extent) // stride[i] + 1)
        return tuple(convolved)


def read_sizes(settings: schema.ConvolutionParameter, names: tuple[str, str, str], least: int) -> Shape:
    """What is written for one quantity: one value for each dimension, one for all, or none; never both ways at once."""
    name, *pair = names
    values = [(f"{name}[{index}]", value) for index, value in enumerate(getattr(settings, name))]
    written = [(field, getattr(settings, field)) for field in pair if field and settings.HasField(field)]
    if written and values:
        raise GraphError(
            f"both {name} {values[0][1]} and {written[0][0]} {written[0][1]} are given: "
            f"give {name}, or {pair[0]} and {pair[1]}",
            field=f"convolution_param.{written[0][0]}",
        )
    if len(written) == 1 and least > 0:
        missing = pair[0] if written[0][0] == pair[1] else pair[1]
        raise GraphError(
            f"{written[0][0]} {written[0][1]} is given without {missing}: give both, or {name}",
            field=f"convolution_param.{written[0][0]}",
        )
    if not written and not values and name == "kernel_size":
        raise GraphError("kernel_size is missing: give it, or kernel_h and kernel_w", field="convolution_param")
    for field, value in values + written:
        if value < least:
            raise GraphError(
                f"{field.partition('[')[0]} {value} must be at least {least}", field=f"convolution_param.{field}"
            )
    return tuple(getattr(settings, field) for field in pair) if written else tuple(value for _, value in values)


def by(sizes: Shape) -> str:
    """`5x3` for (5, 3), `5x5` for (5,), which stands for all dimensions."""
    return "x".join(str(size) for size in (sizes * 2 if len(sizes) == 1 else sizes))


def _for_each(sizes: Shape, rank: int) -> Shape:
    return sizes * rank if len(sizes) == 1 else sizes
