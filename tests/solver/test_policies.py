import math
from dataclasses import replace

import pytest
import torch

from siamese_proto.solver.policies import POLICIES, Schedule, learning_rate, next_step


def rates(schedule: Schedule, iterations: int) -> list[float]:
    step, values = 0, []
    for iteration in range(iterations):
        step = next_step(schedule, iteration, step)
        values.append(learning_rate(schedule, iteration, step))
    return values


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("fixed", 0.25), [0.25, 0.25, 0.25, 0.25, 0.25]),
        (Schedule("step", 0.5, gamma=0.5, stepsize=2), [0.5, 0.5, 0.25, 0.25, 0.125]),
        (Schedule("exp", 0.5, gamma=0.5), [0.5, 0.25, 0.125, 0.0625, 0.03125]),
        (Schedule("inv", 1.0, gamma=1.0, power=2.0), [1, 1 / 4, 1 / 9, 1 / 16, 1 / 25]),
        (Schedule("multistep", 0.5, gamma=0.5, stepvalues=(1, 4)), [0.5, 0.25, 0.25, 0.25, 0.125]),
        (Schedule("poly", 1.0, power=2.0, max_iter=4), [1, 9 / 16, 4 / 16, 1 / 16, 0]),
        (Schedule("sigmoid", 1.0, gamma=-2.0, stepsize=2), [1 / (1 + math.exp(2 * (i - 2))) for i in range(5)]),
    ],
    ids=lambda value: value.policy if isinstance(value, Schedule) else "",
)
def test_a_policy_follows_its_formula(schedule: Schedule, expected: list[float]) -> None:
    assert rates(schedule, 5) == pytest.approx(expected, rel=1e-6)


def test_every_policy_of_caffe_and_cosine_exist() -> None:
    assert set(POLICIES) == {"fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid", "cosine"}


def test_cosine_falls_along_half_a_wave_after_the_warm_up() -> None:
    schedule = Schedule("cosine", 0.8, max_iter=12, warmup=4)
    rising = [0.8 * 1 / 5, 0.8 * 2 / 5, 0.8 * 3 / 5, 0.8 * 4 / 5]
    falling = [0.8 * (1 + math.cos(math.pi * passed / 8)) / 2 for passed in range(8)]
    assert rates(schedule, 12) == pytest.approx(rising + falling, rel=1e-6)
    assert learning_rate(schedule, 12, 0) == learning_rate(schedule, 15, 0) == 0
    torch_rates = []
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.8)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    for _ in range(12):
        torch_rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    assert rates(Schedule("cosine", 0.8, max_iter=12), 12) == pytest.approx(torch_rates, rel=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("fixed", 0.5),
        Schedule("step", 0.5, gamma=0.1, stepsize=2),
        Schedule("multistep", 0.5, gamma=0.1, stepvalues=(1, 4)),
        Schedule("poly", 0.5, power=2.0, max_iter=9),
    ],
    ids=lambda schedule: schedule.policy,
)
def test_a_warm_up_rises_to_the_rate_of_the_policy(schedule: Schedule) -> None:
    rising = [min(1, (iteration + 1) / 4) for iteration in range(8)]
    expected = [rate * factor for rate, factor in zip(rates(schedule, 8), rising, strict=True)]
    assert rates(replace(schedule, warmup=3), 8) == pytest.approx(expected, rel=1e-6)


def test_multistep_takes_at_most_one_step_an_iteration() -> None:
    schedule = Schedule("multistep", 1.0, gamma=0.5, stepvalues=(3, 3, 3))
    assert rates(schedule, 7) == [1, 1, 1, 0.5, 0.25, 0.125, 0.125]


def test_multistep_continues_from_a_restored_step() -> None:
    schedule = Schedule("multistep", 1.0, gamma=0.5, stepvalues=(10, 20))
    assert next_step(schedule, 15, 1) == 1
    assert next_step(schedule, 20, 1) == 2
    assert next_step(schedule, 30, 2) == 2


def test_rates_are_rounded_to_single_precision() -> None:
    assert learning_rate(Schedule("fixed", 0.01), 0, 0) == 0.009999999776482582


def test_a_rate_beyond_single_precision_is_infinite() -> None:
    assert learning_rate(Schedule("exp", 1.0, gamma=10.0), 5000, 0) == math.inf
    assert learning_rate(Schedule("exp", 1.0, gamma=10.0), 100, 0) == math.inf
