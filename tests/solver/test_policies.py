import math

import pytest

from siamese_proto.solver.policies import POLICIES, Schedule, learning_rate, next_step


def rates(schedule: Schedule, iterations: int) -> list[float]:
    step, found = 0, []
    for iteration in range(iterations):
        step = next_step(schedule, iteration, step)
        found.append(learning_rate(schedule, iteration, step))
    return found


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
def test_a_policy_gives_the_rates_of_its_formula(schedule: Schedule, expected: list[float]) -> None:
    assert rates(schedule, 5) == pytest.approx(expected, rel=1e-6)


def test_every_policy_of_caffe_is_there() -> None:
    assert set(POLICIES) == {"fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid"}


def test_multistep_takes_at_most_one_step_an_iteration() -> None:
    schedule = Schedule("multistep", 1.0, gamma=0.5, stepvalues=(3, 3, 3))
    assert rates(schedule, 7) == [1, 1, 1, 0.5, 0.25, 0.125, 0.125]


def test_multistep_goes_on_from_a_restored_step() -> None:
    schedule = Schedule("multistep", 1.0, gamma=0.5, stepvalues=(10, 20))
    assert next_step(schedule, 15, 1) == 1
    assert next_step(schedule, 20, 1) == 2
    assert next_step(schedule, 30, 2) == 2


def test_rates_are_rounded_to_single_precision() -> None:
    assert learning_rate(Schedule("fixed", 0.01), 0, 0) == 0.009999999776482582


def test_a_rate_that_outgrows_single_precision_is_infinite() -> None:
    assert learning_rate(Schedule("exp", 1.0, gamma=10.0), 5000, 0) == math.inf
    assert learning_rate(Schedule("exp", 1.0, gamma=10.0), 100, 0) == math.inf
