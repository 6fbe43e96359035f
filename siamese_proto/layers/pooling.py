"""Pooling over windows of height and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Arity, Shape
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.convolution import by, short
from siamese_proto.layers.torch_source import Source, by_module, call, same, shown
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[int, int]

LOWEST = -3.4028234663852886e38  # -FLT_MAX of C, the initial value of Caffe's maximum
FLT_MIN = 1.1754943508222875e-38  # FLT_MIN of C


@layer("Pooling")
class Pooling(Layer):
    """The maximum (MAX), mean (AVE), or a random value (STOCHASTIC) of each window.

    (N, C, H, W) -> (N, C, OH, OW), O = ceil((S + 2 pad - kernel) / stride) + 1, rounded down with `round_mode: FLOOR`;
    if one of the pads is not 0, a last window that starts beyond S + pad is left out. MAX has an optional second top
    (N, C, OH, OW): the index h W + w of the first maximum, -1 for a window outside the image (where y is -FLT_MAX).
    AVE divides by the size of the part of the window inside S + 2 pad: zeros of the pad count.
    STOCHASTIC draws an element with probability x / sum of x in TRAIN, and is sum of x^2 / sum of x in TEST.
    Caffe: pooling_layer.cpp, pooling_layer.cu
    """

    tops = Arity(1, 2)

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.pooling_param
        self.method = schema.PoolingParameter.PoolMethod.Name(settings.pool)
        self.ceil = settings.round_mode == schema.PoolingParameter.CEIL
        self.kernel = _read_kernel(settings)  # None: the whole image
        self.stride = _read_pair(settings, "stride", least=1)
        self.pad = _read_pair(settings, "pad", least=0)
        if self.top_count > 1 and self.method != "MAX":
            raise GraphError(
                f"pool {self.method} has one top, got {self.top_count}: only MAX has a second top", field="top[1]"
            )
        if self.kernel is None and (self.pad != (0, 0) or self.stride != (1, 1)):
            raise GraphError(
                f"global_pooling requires pad 0 and stride 1, got pad {self.pad} and stride {self.stride}",
                field="pooling_param.global_pooling",
            )
        if self.method == "STOCHASTIC" and self.pad != (0, 0):
            raise GraphError(f"pool STOCHASTIC requires pad 0, got {self.pad}", field="pooling_param.pad")
        # Without gaps no window is outside the image, and torch's kernels have as many windows as Caffe.
        self.is_gapless = self.kernel is None or all(
            2 * pad <= kernel and (self.pad != (0, 0) or stride <= kernel)
            for pad, kernel, stride in zip(self.pad, self.kernel, self.stride, strict=True)
        )
        for pad, size, name in zip(self.pad, self.kernel or (1, 1), "hw", strict=True):
            if pad >= size:
                field = f"pad_{name}" if settings.HasField("pad_h") else "pad"
                raise GraphError(
                    f"{field} {pad} must be less than the kernel size {size}", field=f"pooling_param.{field}"
                )

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) != 4:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has {len(bottoms[0])} axes: Pooling takes 4, (N, C, H, W)",
                field="bottom[0]",
            )
        size = (bottoms[0][2], bottoms[0][3])
        return [(*bottoms[0][:2], *self._pooled(size))] * self.top_count

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        x = bottoms[0]
        size = (x.shape[2], x.shape[3])
        kernel = self.kernel or size
        if self.method == "STOCHASTIC":
            # The zeros of the pad are never drawn.
            x = self._padded(x, kernel, 0.0)
            return [pool_stochastic(x, kernel, self.stride, run if self.phase == "TRAIN" else None, self.key)]
        pooled = self._max if self.method == "MAX" else self._mean
        is_native = self.is_gapless or self._is_native(size)
        # ONNX keeps a last window that begins in the far pad: pad to the exact size instead.
        if is_native and torch.compiler.is_exporting():
            is_native = not any(self._leaves_out(size[axis], axis, kernel[axis]) for axis in (0, 1))
        return pooled(x, kernel, is_native=is_native)

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if self.method == "STOCHASTIC":
            return self._stochastic_source((bottoms[0][2], bottoms[0][3]))
        with_mask = self.top_count > 1
        if self.kernel is None and not with_mask:
            return by_module("nn.AdaptiveMaxPool2d(1)" if self.method == "MAX" else "nn.AdaptiveAvgPool2d(1)")
        size = (bottoms[0][2], bottoms[0][3])
        kernel = self.kernel or size
        if with_mask or not self._is_native(size):
            settings = {"ceil_mode": (self.ceil, True), "with_mask": (with_mask, False)}
            pool = call("WindowPool", shown(self.method), kernel, self.stride, pad=(self.pad, (0, 0)), **settings)
            return by_module(pool, helpers=["functional.pooling.WindowPool"])
        steps = {"stride": (same(self.stride), None), "padding": (same(self.pad), 0)}
        rounding = {"ceil_mode": (self.ceil and self.stride != (1, 1), False)}
        name = "nn.MaxPool2d" if self.method == "MAX" else "nn.AvgPool2d"
        return by_module(call(name, kernel_size=(same(kernel), None), **steps, **rounding))

    def _stochastic_source(self, size: Pair) -> Source:
        draws = {"draws": (self.phase == "TRAIN", None)} if self.has_own_phase else {}
        settings = {"ceil_mode": (self.ceil, True), **draws}
        pool = call("StochasticPool", self.kernel or size, self.stride, **settings)
        return by_module(pool, helpers=["functional.pooling.StochasticPool"])

    def rows_independent(self) -> bool:
        # The random numbers of a row depend on its index in the batch and on the layer's name.
        return self.method != "STOCHASTIC" or self.phase == "TEST"

    def describe(self) -> str:
        if self.kernel is None:
            return f"{self.method} global"
        words = f"{self.method} {by(self.kernel)}/{short(self.stride)}"
        return words + (f", pad {short(self.pad)}" if any(self.pad) else "")

    def _pooled(self, size: Pair) -> Pair:
        """Return height and width of the top. Raises GraphError if no window fits."""
        height, width = (self._windows(size[axis], axis, (self.kernel or size)[axis]) for axis in (0, 1))
        return height, width

    def _windows(self, size: int, axis: int, kernel: int) -> int:
        pad = self.pad[axis]
        count = self._counted(size, axis, kernel)
        if count < 1 or kernel < 1:
            raise GraphError(
                f"kernel size {kernel} is larger than the padded bottom, {size} + 2 x {pad} = {size + 2 * pad}",
                field="pooling_param.kernel_"
                + (("size", "size") if self.kernel == (kernel, kernel) else ("h", "w"))[axis],
            )
        return count - 1 if self._leaves_out(size, axis, kernel) else count

    def _counted(self, size: int, axis: int, kernel: int) -> int:
        stride = self.stride[axis]
        return (size + 2 * self.pad[axis] - kernel + (stride - 1 if self.ceil else 0)) // stride + 1

    def _leaves_out(self, size: int, axis: int, kernel: int) -> bool:
        """Whether the last window would begin after the image and its near pad."""
        return (
            self.pad != (0, 0) and (self._counted(size, axis, kernel) - 1) * self.stride[axis] >= size + self.pad[axis]
        )

    def _is_native(self, size: Pair) -> bool:
        """Whether torch's kernels support these settings and have as many windows as Caffe."""
        kernel = self.kernel or size
        if self.is_gapless or 2 * self.pad[0] > kernel[0] or 2 * self.pad[1] > kernel[1]:
            return self.is_gapless
        # Without a pad Caffe keeps a window that starts after the image, which exists only if there are gaps.
        pooled = self._pooled(size)
        return all((pooled[axis] - 1) * self.stride[axis] < size[axis] for axis in (0, 1))

    def _max(self, x: Tensor, kernel: Pair, *, is_native: bool) -> Sequence[Tensor]:
        import torch

        with_mask = self.top_count > 1
        if not is_native:
            padded = self._padded(x, kernel, LOWEST)
            if not with_mask:
                return [torch.max_pool2d(padded, kernel, self.stride)]
            y, indices = torch.nn.functional.max_pool2d_with_indices(padded, kernel, self.stride)
            return [y, self._unpadded(indices, padded.shape[3], (x.shape[2], x.shape[3])).to(x.dtype)]
        if not with_mask:
            return [torch.max_pool2d(x, kernel, self.stride, self.pad, ceil_mode=self.ceil)]
        y, indices = torch.nn.functional.max_pool2d_with_indices(x, kernel, self.stride, self.pad, ceil_mode=self.ceil)
        return [y, indices.to(x.dtype)]

    def _mean(self, x: Tensor, kernel: Pair, *, is_native: bool) -> Sequence[Tensor]:
        from torch.nn import functional

        if is_native:
            return [functional.avg_pool2d(x, kernel, self.stride, self.pad, ceil_mode=self.ceil)]
        # A convolution, as ONNX has no sum of windows.
        ones = x.new_ones(x.shape[1], 1, *kernel)
        total = functional.conv2d(self._padded(x, kernel, 0.0), ones, stride=self.stride, groups=x.shape[1])
        rows, columns = (
            [
                min(start + kernel[axis], x.shape[2 + axis] + 2 * self.pad[axis]) - start
                for start in range(0, total.shape[2 + axis] * self.stride[axis], self.stride[axis])
            ]
            for axis in (0, 1)
        )
        return [total / total.new_tensor(rows).outer(total.new_tensor(columns))]

    def _padded(self, x: Tensor, kernel: Pair, value: float) -> Tensor:
        """Return the padded image, cropped or extended at the far ends to where the last windows end."""
        from torch.nn import functional

        size = (x.shape[2], x.shape[3])
        pooled = self._pooled(size)
        far = [(pooled[i] - 1) * self.stride[i] + kernel[i] - self.pad[i] - size[i] for i in (0, 1)]
        return functional.pad(x, (self.pad[1], far[1], self.pad[0], far[0]), value=value)

    def _unpadded(self, indices: Tensor, padded_width: int, size: Pair) -> Tensor:
        """Convert indices into the padded image to indices into the image; -1 outside."""
        rows = indices.div(padded_width, rounding_mode="floor") - self.pad[0]
        columns = indices % padded_width - self.pad[1]
        inside = (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])
        return (rows * size[1] + columns).where(inside, -1)


def pool_stochastic(x: Tensor, kernel: Pair, stride: Pair, run: RunState | None, key: str) -> Tensor:
    """Draw an element of each window with probability x / sum of x; without a run, return the mean of such draws."""
    from siamese_proto.layers.functional.draws import uniform

    windows = windows_of(x, kernel, stride)
    return mean_pick(windows) if run is None else pick(windows, uniform(x, windows.shape[:-1], run, key))


def windows_of(x: Tensor, kernel: Pair, stride: Pair) -> Tensor:
    """Return the windows of an image (N, C, H, W) as (N, C, OH, OW, elements)."""
    return x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]).flatten(4)


def pick(windows: Tensor, drawn: Tensor) -> Tensor:
    """Pick an element x of each window (.., elements) with probability x / sum of x; `drawn` (..) is in [0, 1)."""
    sums = windows.detach().cumsum(-1)
    reached = sums >= ((1 - drawn) * sums[..., -1]).unsqueeze(-1)
    return windows.gather(-1, reached.byte().argmax(-1, keepdim=True)).squeeze(-1)


def mean_pick(windows: Tensor) -> Tensor:
    """Return the mean of what `pick` returns for each window (.., elements)."""
    return windows.square().sum(-1) / (windows.sum(-1) + FLT_MIN)


def _read_kernel(settings: schema.PoolingParameter) -> Pair | None:
    """Return height and width of the window, None for global pooling."""
    written = [name for name in ("kernel_size", "kernel_h", "kernel_w") if settings.HasField(name)]
    if settings.global_pooling:
        if written:
            raise GraphError(
                f"both global_pooling and {written[0]} {getattr(settings, written[0])} are set: "
                "the window of global pooling is the whole image",
                field=f"pooling_param.{written[0]}",
            )
        return None
    if not written:
        raise GraphError(
            "kernel_size is missing: set it, or kernel_h and kernel_w, or global_pooling", field="pooling_param"
        )
    return _read_pair(settings, "kernel", least=1)


def _read_pair(settings: schema.PoolingParameter, name: str, least: int) -> Pair:
    """Read a size that is set once for both dimensions (`stride`, `kernel_size`) or as `stride_h` and `stride_w`."""
    single = "kernel_size" if name == "kernel" else name
    pair = [field for field in (f"{name}_h", f"{name}_w") if settings.HasField(field)]
    if pair and settings.HasField(single):
        raise GraphError(
            f"both {single} {getattr(settings, single)} and {pair[0]} {getattr(settings, pair[0])} are set: "
            f"use {single}, or {name}_h and {name}_w",
            field=f"pooling_param.{pair[0]}",
        )
    if len(pair) == 1:
        missing = f"{name}_w" if pair[0] == f"{name}_h" else f"{name}_h"
        raise GraphError(
            f"{pair[0]} {getattr(settings, pair[0])} is set without {missing}: set both, or {single}",
            field=f"pooling_param.{pair[0]}",
        )
    fields = pair or [single, single]
    for field in fields:
        if getattr(settings, field) < least:
            raise GraphError(
                f"{field} {getattr(settings, field)} must be at least {least}", field=f"pooling_param.{field}"
            )
    return getattr(settings, fields[0]), getattr(settings, fields[1])
