"""Other precisions, and nets compiled by torch, learn nearly the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from siamese_proto.errors import SolverError
from siamese_proto.solver import Solver

SOLVER = """
base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 10 display: 0 random_seed: 3 snapshot_after_train: false
net_param {
  layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 8 dim: 5 } shape { dim: 8 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
          inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
  layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
  layer { name: "ip2" type: "InnerProduct" bottom: "ip" top: "ip2"
          inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "y" top: "loss" }
}
"""


def losses(**how: Any) -> list[float]:
    draw = torch.Generator().manual_seed(1)
    batch = {"x": torch.randn(8, 5, generator=draw), "y": torch.arange(8) % 3}
    solver = Solver(SOLVER, data={"in": [batch]}, **how)
    solver.step(10)
    assert all(tensor.dtype is torch.float32 for tensor in solver.net.tensors.values())
    return solver.losses


def test_bf16_learns_nearly_the_same() -> None:
    exact, rough = losses(), losses(precision="bf16")
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.05)


# torch itself warns when it traces an autograd Function.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiled_net_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = losses()
    programs: list[object] = []
    compile_as_it_is = torch.compile

    def traced(program: Any, **how: Any) -> Any:
        programs.append(program)
        return compile_as_it_is(program, backend="aot_eager")  # without a C++ compiler

    monkeypatch.setattr(torch, "compile", traced)
    assert losses(compiled=True) == pytest.approx(eager, rel=1e-5)
    assert len(programs) == 1
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("fp16", "precision fp16 needs a GPU, and the net is on the CPU; use fp32 or bf16"),
        ("tf32", "precision tf32 needs a GPU, and the net is on the CPU; use fp32 or bf16"),
        ("fp8", "unknown precision 'fp8'; it is one of fp32, tf32, bf16, fp16"),
    ],
)
def test_an_unavailable_precision_is_refused(precision: str, message: str) -> None:
    with pytest.raises(SolverError) as caught:
        losses(precision=precision)
    assert caught.value.message == message
