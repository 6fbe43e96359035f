"""Normalization: Caffe's modules and gradients."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamese_proto.layers.functional.element_wise import differentiable_once


def normalize(x: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    """Return x minus its mean over `axes`, divided by its standard deviation plus eps."""
    return cast(Tensor, MeanVarianceRule.apply(x, tuple(axes), eps))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class MeanVarianceRule(torch.autograd.Function):
    """`y = (x - mean) / (s + eps)`, `dL/dx = (g - mean of g - y mean of (y g)) / (s + eps)` with g = dL/dy.

    The last term of the derivative has another factor `(s + eps) / s`, which Caffe leaves out; its gradient is finite
    if all x are equal. (mvn_layer.cpp)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        divisor = variance.sqrt_().add_(eps)
        y: Tensor = (x - mean).div_(divisor)
        ctx.save_for_backward(y, divisor)
        ctx.axes = axes
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, divisor = ctx.saved_tensors
        along = (y * gradient).mean(ctx.axes, keepdim=True)
        return (gradient - gradient.mean(ctx.axes, keepdim=True)).addcmul_(y, along, value=-1).div_(divisor), None, None


class BatchNorm(nn.Module):
    """`y = (x - mean) / sqrt(variance + eps)` of each channel, with Caffe's three statistics.

    (N, C, *S) -> (N, C, *S);  mean (C,) and variance (C,) are sums over past batches, factor (1,) their divisor
    In eval mode, or with `use_global_stats`, the stored statistics are used. Otherwise those of the batch are used and
    added to the stored statistics, which are first multiplied by `fraction`.
    """

    mean: Tensor
    variance: Tensor
    factor: Tensor

    def __init__(
        self, channels: int, fraction: float = 0.999, eps: float = 1e-5, *, use_global_stats: bool | None = None
    ) -> None:
        super().__init__()
        self.fraction = fraction
        self.eps = eps
        self.use_global_stats = use_global_stats
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.zeros(channels))
        self.register_buffer("factor", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize to mean 0 and variance 1, without a learned scale."""
        use_stored = not self.training if self.use_global_stats is None else self.use_global_stats
        if use_stored:
            scale = torch.where(self.factor == 0, 0.0, 1 / self.factor)
            return functional.batch_norm(x, self.mean * scale, self.variance * scale, eps=self.eps)
        if x.numel() == x.shape[1]:  # one value per channel: its mean, without a corrected variance
            batch_mean, batch_variance, y = x.detach().flatten(), torch.zeros_like(self.variance), x * 0
        else:
            # With momentum 1 torch stores the mean and the corrected variance of this batch only.
            batch_mean, batch_variance = torch.zeros_like(self.mean), torch.zeros_like(self.variance)
            y = functional.batch_norm(x, batch_mean, batch_variance, training=True, momentum=1.0, eps=self.eps)
        with torch.no_grad():
            self.mean.mul_(self.fraction).add_(batch_mean)
            self.variance.mul_(self.fraction).add_(batch_variance)
            self.factor.mul_(self.fraction).add_(1)
        return y


class Scale(nn.Module):
    """`y = scale x`, with `bias` `y = scale x + bias`; both have the axes of x from `axis` on.

    (*A, *B, *C) -> (*A, *B, *C), B the shape of the scale
    """

    def __init__(self, *shape: int, axis: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.axis = axis
        self.scale = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Scale the values."""
        shape = (*self.scale.shape, *(1,) * (x.dim() - self.axis - self.scale.dim()))
        scale = self.scale.reshape(shape)
        return x * scale if self.bias is None else self.bias.reshape(shape).addcmul(x, scale)


class WithinChannelNorm(nn.Module):
    """`y = x (1 + alpha / size^2 sum of x^2)^-beta`, the sum over size x size values around x of the same channel.

    (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, size: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """Compute Compute Caffe's LRN with WITHIN_CHANNEL."""
        means = functional.avg_pool2d(x.square(), self.size, stride=1, padding=self.size // 2)
        return x * (1 + self.alpha * means).pow(-self.beta)
