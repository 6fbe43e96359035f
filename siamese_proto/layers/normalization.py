"""Layers that bring values to a common mean, variance or length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.ir import Arity, Filler, ParamRole, Shape
from siamese_proto.layers.base import Layer, RunState, layer, read_filler
from siamese_proto.layers.settings.user_settings import binary_settings
from siamese_proto.layers.torch_source import Source, by_module, call, expression, lengthened, literal
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("BatchNorm")
class BatchNorm(Layer):
    """`y = (x - mean_c) / sqrt(variance_c + eps)`, c the channel: of the batch, or as stored from earlier batches.

    (N, C, *S) -> (N, C, *S);  statistics: mean (C,), variance (C,), scale factor (1,), all 0 at first
    With `use_global_stats` (default: in TEST) mean and variance are the stored ones divided by the scale factor, 0 if
    that is 0. Otherwise they are those of the batch, m = N x prod S values per channel, and the stored statistics
    become `f mean + batch mean`, `f variance + m / (m - 1) batch variance` (0 for m = 1) and `f factor + 1`, with
    f = `moving_average_fraction`. Layers that share statistics update them one after the other.
    Caffe: batch_norm_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.batch_norm_param
        self.fraction, self.eps = settings.moving_average_fraction, settings.eps
        self.is_explicit = settings.HasField("use_global_stats")
        self.uses_stored = settings.use_global_stats if self.is_explicit else self.phase == "TEST"
        # A layer that always uses stored statistics never reads the fraction.
        self.is_fixed = self.is_explicit and settings.use_global_stats and settings.HasField("moving_average_fraction")

    def params(self) -> Sequence[ParamRole]:
        return [ParamRole(role, statistic=True) for role in ("mean", "variance", "scale factor")]

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [(bottoms[0][1],), (bottoms[0][1],), (1,)]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) < 2:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has no channels: BatchNorm takes at least 2 axes, (N, C, ..)",
                field="bottom[0]",
            )
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch
        from torch.nn import functional

        x = bottoms[0]
        mean, variance, factor, *scale = params
        weight, bias = (*scale, None, None)[:2]  # two optional parameters per channel
        if self.uses_stored:
            share = torch.where(factor == 0, 0.0, 1 / factor)
            return [functional.batch_norm(x, mean * share, variance * share, weight, bias, eps=self.eps)]
        if x.numel() == x.shape[1]:  # one value per channel: its mean, without a corrected variance
            batch_mean, batch_variance = x.detach().flatten(), torch.zeros_like(variance)
            y = functional.batch_norm(x * 0, torch.zeros_like(mean), torch.ones_like(variance), weight, bias)
        else:
            # With momentum 1 torch stores the mean and the corrected variance of this batch only.
            batch_mean, batch_variance = torch.zeros_like(mean), torch.zeros_like(variance)
            stored = (batch_mean, batch_variance)
            y = functional.batch_norm(x, *stored, weight, bias, training=True, momentum=1.0, eps=self.eps)
        with torch.no_grad():
            mean.mul_(self.fraction).add_(batch_mean)
            variance.mul_(self.fraction).add_(batch_variance)
            factor.mul_(self.fraction).add_(1)
        return [y]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        settings = {"fraction": (float(f"{self.fraction:.7g}"), 0.999), "eps": (float(f"{self.eps:.7g}"), 1e-5)}
        # By default the module follows train() and eval(), like the phase.
        use_global_stats = self.uses_stored if self.is_explicit or self.has_own_phase else None
        module = call("BatchNorm", bottoms[0][1], **settings, use_global_stats=(use_global_stats, None))
        names = ("mean", "variance", "factor")
        return by_module(module, names, helpers=["functional.normalization.BatchNorm"])

    def rows_independent(self) -> bool:
        return self.uses_stored

    def unused_fields(self) -> Sequence[str]:
        return ["batch_norm_param.moving_average_fraction"] if self.is_fixed else []

    def describe(self) -> str:
        return "stored statistics" if self.uses_stored else "batch statistics"


@layer("LRN")
class LRN(Layer):
    """ACROSS_CHANNELS: `y = x / (k + alpha / n sum of x^2)^beta`, the sum over the n channels around that of x.

    WITHIN_CHANNEL: `y = x (1 + alpha / n^2 sum of x^2)^-beta`, the sum over n x n values around x; k is 1.
    (N, C, H, W) -> (N, C, H, W);  n = local_size, odd; x is 0 beyond the edges
    Caffe: lrn_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.lrn_param
        self.size, self.alpha, self.beta, self.k = settings.local_size, settings.alpha, settings.beta, settings.k
        self.is_within = settings.norm_region == schema.LRNParameter.WITHIN_CHANNEL
        self.unused = ["lrn_param.k"] if self.is_within and settings.HasField("k") else []
        if self.size % 2 == 0:
            raise GraphError(
                f"local_size {self.size} must be odd, so that the window has a center", field="lrn_param.local_size"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) != 4:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has {len(bottoms[0])} axes: LRN takes 4, (N, C, H, W)",
                field="bottom[0]",
            )
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from torch.nn import functional

        x = bottoms[0]
        if not self.is_within:
            return [functional.local_response_norm(x, self.size, self.alpha, self.beta, self.k)]
        means = functional.avg_pool2d(x.square(), self.size, stride=1, padding=self.size // 2)
        return [x * (1 + self.alpha * means).pow(-self.beta)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if self.is_within:
            module = call("WithinChannelNorm", self.size, self.alpha, self.beta)
            return by_module(module, helpers=["functional.normalization.WithinChannelNorm"])
        settings = {"alpha": (self.alpha, None), "beta": (self.beta, None), "k": (self.k, 1.0)}
        return by_module(call("nn.LocalResponseNorm", self.size, **settings))

    def rows_independent(self) -> bool:
        return True

    def unused_fields(self) -> Sequence[str]:
        return self.unused

    def describe(self) -> str:
        words = [f"{self.size}x{self.size} values" if self.is_within else f"{self.size} channels"]
        words += [f"alpha {self.alpha:g}", f"beta {self.beta:g}"]
        words += [f"k {self.k:g}"] if self.k != 1 and not self.is_within else []
        return " ".join(words)


@layer("MVN")
class MVN(Layer):
    """`y = (x - mean) / (sqrt(variance) + eps)`, of each channel of each row, or with `across_channels` of each row.

    (N, C, H, W) -> (N, C, H, W); missing axes are appended: (N, C) -> (N, C, 1, 1)
    Without `normalize_variance`: `y = x - mean`. The variance is divided by the number of values. The gradient is
    that for eps = 0, as in Caffe.
    Caffe: mvn_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.mvn_param
        self.divides, self.is_across, self.eps = settings.normalize_variance, settings.across_channels, settings.eps
        self.unused = ["mvn_param.eps"] if settings.HasField("eps") and not self.divides else []

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) > 4:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has {len(bottoms[0])} axes: MVN takes up to 4, (N, C, H, W)",
                field="bottom[0]",
            )
        return [(*bottoms[0], *(1,) * (4 - len(bottoms[0])))]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from siamese_proto.layers.functional.normalization import normalize

        x = bottoms[0]
        x = x.reshape(*x.shape, *(1,) * (4 - x.dim()))
        axes = (1, 2, 3) if self.is_across else (2, 3)
        return [normalize(x, axes, self.eps) if self.divides else x - x.mean(axes, keepdim=True)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        x = lengthened("{0}", 4 - len(bottoms[0]))
        axes = "(1, 2, 3)" if self.is_across else "(2, 3)"
        if not self.divides:
            return expression(f"{x} - {x}.mean({axes}, keepdim=True)")
        return expression(f"normalize({x}, {axes}, {literal(self.eps)})", "functional.normalization.normalize")

    def rows_independent(self) -> bool:
        return True

    def unused_fields(self) -> Sequence[str]:
        return self.unused

    def describe(self) -> str:
        return ("all channels together" if self.is_across else "each channel") + ("" if self.divides else ", mean only")


# Settings of a fork's layer with the same values and other gradients.
OTHER_MEANINGS = ("fix_gradient", "bp_norm")
SCALED_NUMBER = 206  # of norm_param in the fork that defines it
CHOICES = (
    "Several layers are called Normalize; this one divides by the length, with normalize_param { normalize_type: L2 or "
    "L1 across_spatial eps }, and learns a scale too with norm_param { across_spatial scale_filler channel_shared eps }"
)


@layer("Normalize")
class Normalize(Layer):
    """`y = x / sqrt(sum of x^2 + eps)`, the sum over the channels at each position.

    (N, C, *S) -> (N, C, *S) and, as an optional second top, the divisors, (N, 1, *S)
    With `across_spatial` the sum is over all values of a row, and the divisors are (N, 1, ..., 1). `normalize_type` L1
    divides by sum of |x| + eps.
    With `norm_param` instead of `normalize_param`: `y_c = s_c x_c / sqrt(sum of x^2 + eps)` with a learned scale s
    (C,), or () for all channels, initially 1; `across_spatial` is true by default there.
    Not in BVLC Caffe. Liu, Rabinovich, Berg: ParseNet (norm_param)
    """

    tops = Arity(1, 2)
    reads = ("normalize_param", "norm_param")

    def read(self, message: schema.LayerParameter) -> None:
        for path, raw in self.context.unknown:
            if path in self.reads and raw.name in OTHER_MEANINGS:
                text = f"{quoted(raw.name)} belongs to another Normalize. {CHOICES}"
                raise GraphError(text, field=f"{path}.{raw.name}")
        scaled = message.norm_param
        stored = binary_settings(message, SCALED_NUMBER)
        if stored is not None and not message.HasField("norm_param"):
            scaled = schema.NormParameter.FromString(stored)
        self.has_scale = stored is not None or message.HasField("norm_param")
        if self.has_scale and message.HasField("normalize_param"):
            raise GraphError("both normalize_param and norm_param are set; keep one", field="norm_param")
        settings = scaled if self.has_scale else message.normalize_param
        self.eps, self.across_spatial = settings.eps, settings.across_spatial
        self.kind = (
            "L2" if self.has_scale else schema.NormalizeParameter.Type.Name(message.normalize_param.normalize_type)
        )
        self.is_shared = scaled.channel_shared
        self.filler = read_filler(scaled.scale_filler) if scaled.HasField("scale_filler") else Filler(value=1.0)

    def params(self) -> Sequence[ParamRole]:
        return [ParamRole("scale", self.filler)] if self.has_scale else []

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not self.has_scale:
            return []
        return [() if self.is_shared else (bottoms[0][1],)]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) < 2:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has no channels: Normalize takes at least 2 axes, (N, C, ..)",
                field="bottom[0]",
            )
        rows, _, *places = bottoms[0]
        lengths = (rows, 1, *(1 if self.across_spatial else size for size in places))
        return [bottoms[0], lengths][: self.top_count]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        x = bottoms[0]
        axes = tuple(range(1, x.dim())) if self.across_spatial else (1,)
        if self.kind == "L1":
            length = x.abs().sum(axes, keepdim=True) + self.eps
        else:
            length = (x.square().sum(axes, keepdim=True) + self.eps).sqrt()
        y = x / length
        if params:
            y = y * params[0].reshape(-1, *(1,) * (x.dim() - 2))  # (C, 1, ..) or (1, 1, ..)
        return [y, length][: self.top_count]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        axes = str(tuple(range(1, len(bottoms[0])))) if self.across_spatial and len(bottoms[0]) > 2 else "1"
        size = f"{{0}}.abs().sum({axes}, keepdim=True) + {literal(self.eps)}"
        if self.kind == "L2":
            size = f"({{0}}.square().sum({axes}, keepdim=True) + {literal(self.eps)}).sqrt()"
        y = f"{{0}} / {size}" if self.kind == "L2" else f"{{0}} / ({size})"
        if not self.has_scale:
            return Source((y, size)[: self.top_count])
        scale = "{p0}" if self.is_shared else lengthened("{p0}", len(bottoms[0]) - 2)
        return Source(apart=(f"{y} * {scale}", size)[: self.top_count])

    def rows_independent(self) -> bool:
        return True

    def describe(self) -> str:
        return self.kind + " of rows" * self.across_spatial + " scaled" * self.has_scale
