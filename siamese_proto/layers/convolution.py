"""Convolution, and what all layers with a convolution_param read alike."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Arity, ParamRole, Shape
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer, read_filler
from siamese_proto.layers.checks import check_positive, check_same_shapes
from siamese_proto.layers.torch_source import Source, call, same
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

    Operation = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# The fields of ConvolutionParameter that set one quantity: for any number of dimensions, and the pair for two.
KERNEL = ("kernel_size", "kernel_h", "kernel_w")
STRIDE = ("stride", "stride_h", "stride_w")
PAD = ("pad", "pad_h", "pad_w")
_CACHED_OPERATIONS = 64  # shapes of bottoms at most, of which a layer remembers what is to be done


class Windowed(Layer):
    """Base class of layers whose windows slide over the dimensions after the channels, `axis`."""

    reads: ClassVar[Sequence[str]] = ("convolution_param",)

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.convolution_param
        self.kernel = read_sizes(settings, KERNEL, least=1)  # empty if not set
        self.stride = read_sizes(settings, STRIDE, least=1) or (1,)
        self.pad = read_sizes(settings, PAD, least=0) or (0,)
        self.dilation = read_sizes(settings, ("dilation", "", ""), least=1) or (1,)
        self.is_pair = any(settings.HasField(name) for _, *pair in (KERNEL, STRIDE, PAD) for name in pair)
        self.axis = settings.axis

    def rows_independent(self) -> bool:
        return self.axis > 0

    def describe(self) -> str:
        words = [by(self.kernel), f"stride {short(self.stride)}"] if self.kernel else []
        words += [f"pad {short(self.pad)}"] if any(self.pad) else []
        words += [f"dilation {short(self.dilation)}"] if set(self.dilation) != {1} else []
        return ", ".join(words)

    def parted(self, bottom: Shape) -> tuple[Shape, int, Shape]:
        """Split a shape into the dimensions before the channels, the channels, and the spatial dimensions.

        Raises GraphError if the settings do not fit the number of spatial dimensions.
        """
        axis = canonical_axis(self.axis, bottom, "convolution_param.axis")
        spatial = bottom[axis + 1 :]
        rank = len(spatial)
        self.check_rank(bottom, rank)
        if self.is_pair and rank != 2:
            raise GraphError(
                f"settings for height and width need 2 spatial dimensions, but a bottom of shape {bottom} has {rank}: "
                "set kernel_size, stride and pad once per dimension",
                field="convolution_param",
            )
        if rank and not self.kernel:
            raise GraphError("kernel_size is missing: set it, or kernel_h and kernel_w", field="convolution_param")
        for name, sizes in self._sizes().items():
            if len(sizes) not in (1, rank):
                raise GraphError(
                    f"{name} is set {len(sizes)} times for {rank} spatial dimensions of a bottom of shape {bottom}: "
                    "set it once, or once per dimension",
                    field=f"convolution_param.{name}[0]",
                )
        return bottom[:axis], bottom[axis], spatial

    def check_rank(self, bottom: Shape, rank: int) -> None:
        """Raise GraphError if the layer does not support this number of spatial dimensions."""

    def windows(self, rank: int) -> tuple[Shape, Shape, Shape, Shape]:
        """Return kernel, stride, pad and dilation of each of `rank` dimensions."""
        kernel, stride, pad, dilation = (
            sizes * rank if len(sizes) == 1 else sizes[:rank] for sizes in self._sizes().values()
        )
        return kernel, stride, pad, dilation

    def slid(self, spatial: Shape) -> Shape:
        """Return the number of windows along each dimension. Raises GraphError if the kernel does not fit."""
        counts = []
        for i, (size, kernel, stride, pad, dilation) in enumerate(
            zip(spatial, *self.windows(len(spatial)), strict=True)
        ):
            extent = dilation * (kernel - 1) + 1
            padded = size + 2 * pad
            if extent - padded >= stride:  # Caffe rounds towards 0, so that one window may extend beyond the bottom
                dilated = f" (dilation {dilation} makes it {extent})" if dilation > 1 else ""
                raise GraphError(
                    f"kernel size {kernel}{dilated} is larger than the padded bottom, {size} + 2 x {pad} = {padded}",
                    field=self.field(KERNEL, i, len(spatial)),
                )
            counts.append(max(padded - extent, 0) // stride + 1)
        return tuple(counts)

    def overhang(self, spatial: Shape) -> Shape:
        """Return how far a window extends beyond the pad along each dimension; only a single window can."""
        sizes = zip(spatial, *self.windows(len(spatial)), strict=True)
        return tuple(max(dilation * (kernel - 1) + 1 - size - 2 * pad, 0) for size, kernel, _, pad, dilation in sizes)

    def field(self, names: tuple[str, str, str], dimension: int, rank: int) -> str:
        """Return the field that sets a size for a dimension."""
        return "convolution_param." + (names[1 + dimension] if self.is_pair and rank == 2 else f"{names[0]}[0]")

    def _sizes(self) -> dict[str, Shape]:
        return {"kernel_size": self.kernel, "stride": self.stride, "pad": self.pad, "dilation": self.dilation}


@layer("Convolution")
class Convolution(Windowed):
    """`y[n, o, t] = b[o] + sum over c, k of w[o, c, k] x[n, c, stride t + dilation k - pad]`, in up to 3 dimensions.

    (N, C, *S) -> (N, num_output, *T), T = floor((S + 2 pad - dilation (kernel - 1) - 1) / stride) + 1;
    several bottoms of the same shape have one top each and share the weights;
    with `axis` a, N stands for the first a axes.  weight (num_output, C / group, *kernel), bias (num_output,)
    A kernel may exceed the padded bottom by less than the stride: the single window then reads zeros beyond it.
    Without spatial dimensions there are no windows: `y[n, o] = b[o] + sum over c of w[o, c] x[n, c]`.
    Caffe: base_conv_layer.cpp, conv_layer.cpp
    """

    bottoms = Arity(1, None)
    tops = Arity(1, None)
    same_count = True
    torch_names = ("nn.Conv", "functional.conv")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, without the cached functions, which cannot be pickled."""
        return {**vars(self), "_operations": {}}

    def read(self, message: schema.LayerParameter) -> None:
        super().read(message)
        self._operations: dict[Shape, Operation] = {}
        settings = message.convolution_param
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
        shapes = [(*self.weighed(channels), *self.windows(len(spatial))[0]), (self.num_output,)]
        return shapes[: len(self.roles)]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        lead, channels, spatial = self.parted(bottoms[0])
        if channels % self.group:
            raise GraphError(
                f"group {self.group} does not divide the {channels} channels of bottom shape {bottoms[0]}",
                field="convolution_param.group",
            )
        check_same_shapes(bottoms)
        return [(*lead, self.num_output, *self.convolved(spatial))] * len(bottoms)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        weight = params[0]
        bias = params[1] if len(params) > 1 else None
        return [self._cached_operation(bottom.shape)(bottom, weight, bias) for bottom in bottoms]

    def _cached_operation(self, bottom: Shape) -> Operation:
        """Call `build_operation` once per shape, since it takes a large part of the time of small nets."""
        import torch

        if torch.compiler.is_compiling():
            return self.build_operation(bottom)  # sizes may be symbolic
        operation = self._operations.get(bottom)
        if operation is None:
            if len(self._operations) == _CACHED_OPERATIONS:
                self._operations.clear()
            operation = self._operations[bottom] = self.build_operation(bottom)
        return operation

    def build_operation(self, bottom: Shape) -> Operation:
        """Return the function of bottom, weight and bias that computes the top for a bottom of this shape."""
        from torch.nn import functional

        axis = canonical_axis(self.axis, bottom)
        channels, spatial = bottom[axis], tuple(bottom[axis + 1 :])
        rank = len(spatial)
        operate = self.operation(rank)
        pads = [length for size in reversed(self.overhang(spatial)) for length in (0, size)]
        is_padded = any(pads)
        is_faster = gains_from_channels_last((*self.weighed(channels), *self.windows(rank)[0]))

        def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            lead = () if axis == 1 else x.shape[:axis]
            if axis != 1:
                x = x.reshape(-1, *x.shape[axis:])
            if is_padded:
                x = functional.pad(x, pads)
            if is_faster and weight.is_cpu:
                weight = channels_last(weight)
                if (
                    channels > 1
                ):  # with one channel both layouts have the same bytes, and torch uses the strides of the weight
                    x = channels_last(x)
            y = operate(x, weight, bias)
            return y if axis == 1 else y.reshape(*lead, *y.shape[1:])

        return convolve

    def laid_out(self, index: int, values: Tensor) -> Tensor:
        return channels_last(values) if gains_from_channels_last(values.shape) and values.is_cpu else values

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        axis = canonical_axis(self.axis, bottoms[0])
        channels, spatial = bottoms[0][axis], bottoms[0][axis + 1 :]
        rank = len(spatial)
        filled = [size for length in reversed(self.overhang(spatial)) for size in (0, length)]
        bottom = f"functional.pad({{x}}, ({', '.join(map(str, filled))}))" if any(filled) else "{x}"
        module, function = (f"{name}{rank or 1}d" for name in self.torch_names)
        windows = [same(sizes) for sizes in self.windows(rank)] if rank else [1, 1, 0, 1]
        kernel, (stride, padding, dilation) = windows[0], windows[1:]
        steps = {"stride": (stride, 1), "padding": (padding, 0), "dilation": (dilation, 1), "groups": (self.group, 1)}
        bias = "{p1}" if len(self.roles) > 1 else "None"
        # Without spatial dimensions, convolve over one of size 1 with a window of size 1.
        x, weight = (bottom, "{p0}") if rank else ("{x}.unsqueeze(-1)", "{p0}.unsqueeze(-1)")
        apart = call(function, x, weight, bias, **steps) + ("" if rank else ".squeeze(-1)")
        constructor = call(
            module, channels, self.num_output, kernel_size=(kernel, None), **steps, bias=(len(self.roles) > 1, True)
        )
        return Source(
            tuple(joined_rows(f"{{module}}({bottom})", i, axis) for i in range(len(bottoms))),
            constructor if rank else "",
            ("weight", "bias")[: len(self.roles)],
            tuple(joined_rows(apart, i, axis) for i in range(len(bottoms))),
        )

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return sum(prod(top) for top in tops) * prod(self.param_shapes(bottoms)[0][1:])

    def describe(self) -> str:
        window = f" x {super().describe()}" if self.kernel else ""
        return f"{self.num_output}{window}" + (f", group {self.group}" if self.group > 1 else "")

    def check_rank(self, bottom: Shape, rank: int) -> None:
        if rank > 3:
            raise GraphError(
                f"a bottom of shape {bottom} has {rank} dimensions after the channels (axis {self.axis}): "
                f"{self.type} supports up to 3",
                field="bottom[0]",
            )

    def weighed(self, channels: int) -> Shape:
        """Return the first two dimensions of the weight."""
        return self.num_output, channels // self.group

    def convolved(self, spatial: Shape) -> Shape:
        """Return the spatial dimensions of the tops."""
        return self.slid(spatial)

    def operation(self, rank: int) -> Operation:
        """Return the convolution over `rank` dimensions; with none, over one dimension of size 1."""
        import torch
        from torch.nn import functional

        if rank == 0:
            return over_one(functools.partial(functional.conv1d, groups=self.group))
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
        # One size per dimension, since exporters do not accept a single size for all.
        kernel, stride, pad, dilation = self.windows(rank)
        group = self.group
        if {*stride, *dilation, group} == {1} and not any(pad):
            return convolve  # passing default values would take torch additional time

        def strided(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return convolve(x, weight, bias, stride, pad, dilation, group)

        if {*stride} == {1} or {*kernel} != {1} or any(pad):
            return strided
        steps: tuple[Any, ...] = (..., *(slice(None, None, step) for step in stride))

        def of_points(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            """Read only the elements that are used: faster, and avoids out-of-bounds writes of oneDNN (torch 2.13)."""
            if not x.is_cpu or torch.compiler.is_compiling():
                return strided(x, weight, bias)
            return convolve(x[steps], weight, bias, 1, 0, 1, group)

        return of_points


def over_one(operate: Operation) -> Operation:
    """Apply an operation over one dimension to tensors without spatial dimensions."""
    return lambda x, weight, bias: operate(x.unsqueeze(-1), weight.unsqueeze(-1), bias).squeeze(-1)


def gains_from_channels_last(weight: Shape) -> bool:
    """Whether the CPU is faster with channels innermost (measured, see docs/decisions/0009)."""
    return len(weight) == 4 and weight[1] <= 32 and weight[2] <= 10 and weight[3] <= 10


def read_sizes(settings: schema.ConvolutionParameter, names: tuple[str, str, str], least: int) -> Shape:
    """Read one value per dimension, one for all, or none: from the repeated field, or the pair for 2 dimensions."""
    name, *pair = names
    values = [(f"{name}[{index}]", value) for index, value in enumerate(getattr(settings, name))]
    written = [(field, getattr(settings, field)) for field in pair if field and settings.HasField(field)]
    if written and values:
        raise GraphError(
            f"both {name} {values[0][1]} and {written[0][0]} {written[0][1]} are set: "
            f"use {name}, or {pair[0]} and {pair[1]}",
            field=f"convolution_param.{written[0][0]}",
        )
    if len(written) == 1 and least > 0:
        missing = pair[0] if written[0][0] == pair[1] else pair[1]
        raise GraphError(
            f"{written[0][0]} {written[0][1]} is set without {missing}: set both, or {name}",
            field=f"convolution_param.{written[0][0]}",
        )
    for field, value in values + written:
        if value < least:
            raise GraphError(
                f"{field.partition('[')[0]} {value} must be at least {least}", field=f"convolution_param.{field}"
            )
    return tuple(getattr(settings, field) for field in pair) if written else tuple(value for _, value in values)


def by(sizes: Shape) -> str:
    """Return `5x3` for (5, 3), and `5x5` for (5,), one size for all dimensions."""
    return "x".join(str(size) for size in (sizes * 2 if len(sizes) == 1 else sizes))


def short(sizes: Shape) -> str:
    """Return `2` for (2, 2) and (2,), `2x1` for (2, 1)."""
    return str(sizes[0]) if len(set(sizes)) == 1 else by(sizes)


def joined_rows(text: str, index: int, axis: int) -> str:
    """Return the expression `text` for the batch `{x}`: bottom `index`, with the dimensions before `axis` flattened."""
    bottom = f"{{{index}}}"
    if axis == 0:
        return f"{text.replace('{x}', f'{bottom}.unsqueeze(0)')}.squeeze(0)"
    if axis == 1:
        return text.replace("{x}", bottom)
    return f"{text.replace('{x}', f'{bottom}.flatten(0, {axis - 1})')}.unflatten(0, {bottom}.shape[:{axis}])"


def channels_last(x: Tensor) -> Tensor:
    """Return x (N, C, H, W) with the channels innermost in memory."""
    import torch

    if x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last):
        return x
    if x.shape[1] == 1:  # both layouts are equal, and torch selects its kernel by the strides
        n, _, height, width = x.shape
        return x.reshape(n, height, width, 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)
