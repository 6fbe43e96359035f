"""torch's two steps to ONNX, with what they say and refuse put in order."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# What torch raises for code that it cannot trace or turn into ONNX. Its exporter's own errors are RuntimeErrors.
REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
_UNKNOWN = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


class Program(nn.Module):
    """A net's program with its parameters inside, as constants."""

    def __init__(self, program: fx.GraphModule, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.program = program
        self.weights = nn.Module()
        self.order = tuple(values)
        for name, tensor in values.items():
            self.weights.register_buffer(name, tensor)

    def forward(self, *blobs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for these inputs."""
        return cast("tuple[Tensor, ...]", self.program(*blobs, *(getattr(self.weights, name) for name in self.order)))


def exported(module: nn.Module, example: Sequence[Tensor], *, any_rows: bool) -> ExportedProgram:
    """The module as torch.export sees it; with `any_rows` the first dimension of all inputs has any size.

    Raises one of REFUSALS where the module cannot be traced, or not for any size.
    """
    rows = torch.export.Dim("batch")
    dynamic = {"blobs": tuple({0: rows} for _ in example)} if any_rows else None
    with torch.no_grad():
        return torch.export.export(module, tuple(example), dynamic_shapes=dynamic, strict=False)


def converted(program: ExportedProgram) -> torch.onnx.ONNXProgram:
    """The program as ONNX, every constant where it is: folding would store some twice. Raises one of REFUSALS."""
    forms: Any = {
        torch.ops.aten.sort.stable: _sort,
        torch.ops.aten._native_batch_norm_legit_functional.default: _batch_norm,
    }
    made = torch.onnx.export(
        program,
        dynamo=True,
        optimize=False,
        verbose=False,
        custom_translation_table=forms,
    )
    if made is None:
        raise RuntimeError("torch made no ONNX program")
    return made


def _sort(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """torch.sort as ONNX, which has only TopK: of equal values the one with the lower index stands first."""
    import onnxscript

    op: Any = onnxscript.opset18  # its types are those of constants
    count = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> Any:
    """Normalisation by the statistics of the batch, for which torch's exporter takes those that are stored."""
    import onnxscript

    op: Any = onnxscript.opset18
    axes = op.Constant(value_ints=[0, *range(2, len(x.shape))])
    batch_mean = op.ReduceMean(x, axes, keepdims=1)
    centred = op.Sub(x, batch_mean)
    batch_variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    scale = op.Sqrt(op.Add(batch_variance, op.CastLike(op.Constant(value_float=eps), x)))
    means, scales = (op.Reshape(each, op.Constant(value_ints=[-1])) for each in (batch_mean, scale))
    return op.Div(centred, scale), means, scales, mean, variance


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what torch says of its own making: deprecations inside it, packages that nobody here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def reason(error: BaseException) -> str:
    """What torch refused, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    unknown = _UNKNOWN.search(str(error))
    if unknown and unknown[1].startswith("siamese_proto."):
        return "it draws at random"
    if unknown:
        return f"torch's exporter has no {unknown[1]}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
