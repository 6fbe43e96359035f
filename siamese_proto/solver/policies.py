"""Learning-rate policies (sgd_solver.cpp, GetLearningRate).

Each is a pure function of the iteration and the number of steps so far, which only `step` and `multistep` use. Rates
are rounded to float32, in which Caffe computes them. `cosine`, and the warm-up before any policy, are not in Caffe.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The settings of the learning rate; `policy` is a key of POLICIES."""

    policy: str
    base_lr: float
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 0
    stepvalues: tuple[int, ...] = ()
    max_iter: int = 0
    warmup: int = 0  # iterations


@dataclass(frozen=True)
class Policy:
    """The factor of base_lr, and the solver fields that the policy needs."""

    factor: Callable[[Schedule, int, int], float]
    needs: tuple[str, ...] = ()


def fixed(schedule: Schedule, iteration: int, current_step: int) -> float:
    """1"""
    return 1.0


def step(schedule: Schedule, iteration: int, current_step: int) -> float:
    """gamma ^ current_step; current_step = floor(iteration / stepsize) or, in multistep, the past stepvalues"""
    return float(schedule.gamma**current_step)


def exp(schedule: Schedule, iteration: int, current_step: int) -> float:
    """gamma ^ iteration"""
    return float(schedule.gamma**iteration)


def inv(schedule: Schedule, iteration: int, current_step: int) -> float:
    """(1 + gamma iteration) ^ -power"""
    return float((1 + schedule.gamma * iteration) ** -schedule.power)


def poly(schedule: Schedule, iteration: int, current_step: int) -> float:
    """(1 - iteration / max_iter) ^ power; after max_iter, where Caffe's formula has no value, as at max_iter"""
    return float(max(0.0, 1 - iteration / schedule.max_iter) ** schedule.power)


def sigmoid(schedule: Schedule, iteration: int, current_step: int) -> float:
    """1 / (1 + e ^ (-gamma (iteration - stepsize)))"""
    return 0.5 * (1 + math.tanh(schedule.gamma * (iteration - schedule.stepsize) / 2))


def cosine(schedule: Schedule, iteration: int, current_step: int) -> float:
    """(1 + cos(pi (iteration - warmup) / (max_iter - warmup))) / 2; 1 before, 0 after

    Not in Caffe. Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017 (without restarts)
    """
    passed = (iteration - schedule.warmup) / (schedule.max_iter - schedule.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(max(passed, 0.0), 1.0)))


def warmup(schedule: Schedule, iteration: int) -> float:
    """(iteration + 1) / (warmup + 1), at most 1: the rate is the policy's from iteration `warmup` on; not in Caffe"""
    return min(1.0, (iteration + 1) / (schedule.warmup + 1))


POLICIES: Mapping[str, Policy] = {
    "fixed": Policy(fixed),
    "step": Policy(step, needs=("gamma", "stepsize")),
    "exp": Policy(exp, needs=("gamma",)),
    "inv": Policy(inv, needs=("gamma", "power")),
    "multistep": Policy(step, needs=("gamma", "stepvalue")),
    "poly": Policy(poly, needs=("power", "max_iter")),
    "sigmoid": Policy(sigmoid, needs=("gamma", "stepsize")),
    "cosine": Policy(cosine, needs=("max_iter",)),
}


def next_step(schedule: Schedule, iteration: int, current_step: int) -> int:
    """Return the number of steps when `iteration` begins.

    `multistep` takes at most one step per iteration, so a run whose iteration was changed catches up one stepvalue at a
    time, as in Caffe.
    """
    if schedule.policy == "step":
        return iteration // schedule.stepsize
    stepvalues = schedule.stepvalues if schedule.policy == "multistep" else ()
    due = current_step < len(stepvalues) and iteration >= stepvalues[current_step]
    return current_step + int(due)


def learning_rate(schedule: Schedule, iteration: int, current_step: int) -> float:
    """Return the rate of one iteration, without lr_mult; `current_step` is that of `next_step` for this iteration."""
    try:
        rate = schedule.base_lr * POLICIES[schedule.policy].factor(schedule, iteration, current_step)
        rate *= warmup(schedule, iteration)
        return float(struct.unpack("f", struct.pack("f", rate))[0])
    except OverflowError:  # a gamma above 1 exceeds single precision; C++ continues with infinity
        return math.inf
