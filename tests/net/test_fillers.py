"""First values: the formulas of filler.hpp against moments, bounds and hand-worked kernels."""

from __future__ import annotations

import math

import pytest
import torch

from siamese_proto.errors import NetError
from siamese_proto.graph.ir import Filler
from siamese_proto.net.fillers import fan, fill

SHAPE = (60, 50, 7, 3)


def filled(filler: Filler, shape: tuple[int, ...] = SHAPE, seed: int = 3) -> torch.Tensor:
    tensor = torch.full(shape, math.nan)
    fill(tensor, filler, torch.Generator().manual_seed(seed))
    return tensor


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", 50 * 21), ("FAN_OUT", 60 * 21), ("AVERAGE", 55 * 21)])
def test_fan_counts_inputs_outputs_or_their_mean(norm: str, n: float) -> None:
    assert fan(SHAPE, norm) == n


def test_fan_of_one_axis_has_one_value_per_output_and_all_values_per_input() -> None:
    assert fan((12,), "FAN_IN") == 1
    assert fan((12,), "FAN_OUT") == 12


def test_constant_fills_with_its_value_and_zero_by_default() -> None:
    assert torch.equal(filled(Filler("constant", value=0.25)), torch.full(SHAPE, 0.25))
    assert torch.equal(filled(Filler()), torch.zeros(SHAPE))


def test_uniform_spans_min_to_max() -> None:
    values = filled(Filler("uniform", min=-2, max=4))
    assert -2 <= values.min() < -1.99
    assert 3.99 < values.max() < 4
    assert values.mean().item() == pytest.approx(1, abs=0.05)


def test_gaussian_has_mean_and_deviation() -> None:
    values = filled(Filler("gaussian", mean=3, std=0.5))
    assert values.mean().item() == pytest.approx(3, abs=0.01)
    assert values.std().item() == pytest.approx(0.5, abs=0.01)


def test_sparse_gaussian_keeps_the_given_number_of_values_per_column_on_average() -> None:
    values = filled(Filler("gaussian", sparse=15))
    assert (values != 0).float().mean().item() == pytest.approx(15 / SHAPE[0], abs=0.01)


@pytest.mark.parametrize("norm", ["FAN_IN", "FAN_OUT", "AVERAGE"])
def test_xavier_is_uniform_in_the_root_of_three_over_n(norm: str) -> None:
    values = filled(Filler("xavier", variance_norm=norm))  # type: ignore[arg-type]  # one of its three literals
    bound = math.sqrt(3 / fan(SHAPE, norm))
    assert values.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert values.var().item() == pytest.approx(bound**2 / 3, rel=0.03)


def test_xavier_of_800_to_500_has_caffes_bound_not_glorots() -> None:
    assert filled(Filler("xavier"), (500, 800)).abs().max().item() == pytest.approx(0.0612, abs=1e-4)


@pytest.mark.parametrize("norm", ["FAN_IN", "FAN_OUT", "AVERAGE"])
def test_msra_is_normal_with_variance_two_over_n(norm: str) -> None:
    values = filled(Filler("msra", variance_norm=norm))  # type: ignore[arg-type]  # one of its three literals
    assert values.var().item() == pytest.approx(2 / fan(SHAPE, norm), rel=0.03)
    assert values.mean().item() == pytest.approx(0, abs=1e-3)


def test_positive_unitball_makes_rows_that_sum_to_one() -> None:
    values = filled(Filler("positive_unitball"), (6, 5, 4)).view(6, -1)
    assert (values >= 0).all()
    torch.testing.assert_close(values.sum(1), torch.ones(6))


def test_bilinear_is_the_kernel_of_upsampling_by_two() -> None:
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    expected = torch.outer(line, line).expand(3, 2, 4, 4)
    torch.testing.assert_close(filled(Filler("bilinear"), (3, 2, 4, 4)), expected)


def test_the_same_generator_gives_the_same_values() -> None:
    assert torch.equal(filled(Filler("msra"), seed=5), filled(Filler("msra"), seed=5))
    assert not torch.equal(filled(Filler("msra"), seed=5), filled(Filler("msra"), seed=6))


@pytest.mark.parametrize(
    ("filler", "shape", "message"),
    [
        (Filler("xaver"), SHAPE, "unknown filler type 'xaver'; did you mean 'xavier'?"),
        (Filler("msra", sparse=3), SHAPE, "sparse is for the filler 'gaussian' only, not for 'msra'"),
        (Filler("bilinear"), (3, 2, 4, 5), "the filler 'bilinear' needs a square 4-axis blob, not (3, 2, 4, 5)"),
        (Filler("xavier"), (), "the filler 'xavier' counts along axes, and a single number has none"),
        (Filler("gaussian", sparse=2), (), "the filler 'gaussian' counts along axes, and a single number has none"),
        (Filler("bilinear"), (4, 4), "the filler 'bilinear' needs a square 4-axis blob, not (4, 4)"),
    ],
)
def test_unsuitable_fillers_are_refused(filler: Filler, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(NetError) as caught:
        filled(filler, shape)
    assert str(caught.value) == message
