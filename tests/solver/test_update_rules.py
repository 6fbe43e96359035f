"""Update rules, compared with the same formulas for single numbers."""

import copy
import math
from collections.abc import Callable

import pytest
import torch

import siamese_proto as sp
from siamese_proto.errors import SolverError
from siamese_proto.solver.rules import RULES, UpdateRule
from siamese_proto.solver.settings import RuleSettings

Rule = Callable[[float, float, dict[str, float], float, int], float]  # weight, gradient, state, rate, t -> weight
M, M2, DECAY, DELTA = 0.9, 0.99, 0.8, 1e-3


def sgd(w: float, g: float, s: dict[str, float], rate: float, t: int) -> float:
    s["h"] = M * s.get("h", 0) + rate * g
    return w - s["h"]


def nesterov(w: float, g: float, s: dict[str, float], rate: float, t: int) -> float:
    before = s.get("h", 0)
    s["h"] = M * before + rate * g
    return w - ((1 + M) * s["h"] - M * before)


def adagrad(w: float, g: float, s: dict[str, float], rate: float, t: int) -> float:
    s["h"] = s.get("h", 0) + g * g
    return w - rate * g / (math.sqrt(s["h"]) + DELTA)


def rmsprop(w: float, g: float, s: dict[str, float], rate: float, t: int) -> float:
    s["h"] = DECAY * s.get("h", 0) + (1 - DECAY) * g * g
    return w - rate * g / (math.sqrt(s["h"]) + DELTA)


def adadelta(w: float, g: float, s: dict[str, float], rate: float, t: int) -> float:
    s["h"] = M * s.get("h", 0) + (1 - M) * g * g
    step = g * math.sqrt((s.get("d", 0) + DELTA) / (s["h"] + DELTA))
    s["d"] = M * s.get("d", 0) + (1 - M) * step * step
    return w - rate * step


def adam(w: float, g: float, s: dict[str, float], rate: float, t: int) -> float:
    s["m"] = M * s.get("m", 0) + (1 - M) * g
    s["v"] = M2 * s.get("v", 0) + (1 - M2) * g * g
    return w - rate * math.sqrt(1 - M2**t) / (1 - M**t) * s["m"] / (math.sqrt(s["v"]) + DELTA)


FORMULAS: dict[str, Rule] = {
    "SGD": sgd,
    "Nesterov": nesterov,
    "AdaGrad": adagrad,
    "RMSProp": rmsprop,
    "AdaDelta": adadelta,
    "Adam": adam,
}


def settings(kind: str, **more: object) -> RuleSettings:
    return RuleSettings(kind, momentum=M, momentum2=M2, rms_decay=DECAY, delta=DELTA, **more)  # type: ignore[arg-type]


def test_every_rule_of_caffe_and_adamw_exist() -> None:
    assert set(RULES) == {*FORMULAS, "AdamW"}


def test_adamw_equals_that_of_torch() -> None:
    start = [torch.tensor([1.5, -0.5, 0.0]), torch.tensor([[2.0], [-3.0]])]
    ours, theirs = ([tensor.double().clone().requires_grad_() for tensor in start] for _ in range(2))
    rule = RULES["AdamW"](ours, settings("AdamW", weight_decay=0.2), lr_mults=[1, 2], decay_mults=[3, 0.5])
    groups = [{"params": theirs[:1], "weight_decay": 0.2 * 3}, {"params": theirs[1:], "weight_decay": 0.2 * 0.5}]
    optimizer = torch.optim.AdamW(groups, betas=(M, M2), eps=DELTA)
    for t, rate in enumerate([0.5, 0.5, 0.1, 0.1, 0.3]):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.cos(torch.arange(one.numel(), dtype=torch.float64) + t).view_as(one)
            other.grad = one.grad.clone()
        rule.set_rate(rate)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, 2 * rate
        rule.step()
        optimizer.step()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_step_is_left_in_the_gradient_as_in_caffe(kind: str) -> None:
    weights = [torch.ones(2, requires_grad=True), torch.full((1, 3), -2.0, requires_grad=True)]
    rule = RULES[kind](weights, settings(kind, weight_decay=0.1), lr_mults=[1, 2], keep_steps=True)
    for step in range(3):
        before = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.grad = torch.full_like(weight, math.cos(step))
        rule.set_rate(0.1)
        rule.step()
        for old, weight in zip(before, weights, strict=True):
            assert torch.equal(old - weight.grad, weight.detach())


def test_parameters_of_one_rate_and_decay_are_updated_together() -> None:
    weights = [torch.ones(2, requires_grad=True) for _ in range(5)]
    rule = RULES["SGD"](weights, RuleSettings(), lr_mults=[1, 2, 1, 2, 1], decay_mults=[1, 0, 1, 0, 0])
    assert [len(group["params"]) for group in rule.param_groups] == [2, 2, 1]
    for index, weight in enumerate(weights):
        weight.grad = torch.full_like(weight, float(index))
    rule.set_rate(1.0)
    rule.step()
    assert [history[0].item() for history in rule.export_history()] == [0, 2, 2, 6, 4]  # in the order of the net


@pytest.mark.parametrize("regularization", ["L2", "L1"])
@pytest.mark.parametrize("kind", FORMULAS)
def test_a_rule_follows_its_formula_while_the_rate_changes(kind: str, regularization: str) -> None:
    weights = [torch.tensor([1.5, -0.5, 0.0], dtype=torch.float64), torch.tensor([[2.0], [-3.0]], dtype=torch.float64)]
    for weight in weights:
        weight.requires_grad_()
    lr_mults, decay_mults, decay = [1.0, 2.0], [3.0, 0.5], 0.01
    rule = RULES[kind](
        weights,
        settings(kind, weight_decay=decay, regularization=regularization),
        lr_mults=lr_mults,
        decay_mults=decay_mults,
    )
    expected = [weight.flatten().tolist() for weight in weights]
    states: list[list[dict[str, float]]] = [[{} for _ in values] for values in expected]
    for t, rate in enumerate([1.0, 1.0, 0.1, 0.1, 0.5], start=1):
        for which, weight in enumerate(weights):
            weight.grad = torch.sin(torch.arange(weight.numel(), dtype=torch.float64) + t + which).view_as(weight)
            for index, value in enumerate(expected[which]):
                slope = value if regularization == "L2" else math.copysign(1, value) if value else 0.0
                gradient = math.sin(index + t + which) + decay * decay_mults[which] * slope
                state = states[which][index]
                expected[which][index] = FORMULAS[kind](value, gradient, state, rate * lr_mults[which], t)
        rule.set_rate(rate)
        rule.step()
    for weight, values in zip(weights, expected, strict=True):
        assert weight.flatten().tolist() == pytest.approx(values, rel=1e-12, abs=1e-12)


def test_sgd_stores_the_learning_rate_inside_the_history() -> None:
    weight = torch.zeros(1, requires_grad=True)
    rule = RULES["SGD"]([weight], RuleSettings(momentum=0.9))
    for rate in (1, 1, 0.1, 0.1):
        weight.grad = torch.ones(1)
        rule.set_rate(rate)
        rule.step()
    assert weight.item() == pytest.approx(-6.439, abs=1e-5)  # torch.optim.SGD comes to -3.515


def one_step(weights: list[torch.Tensor], grads: list[list[float] | None], **more: object) -> None:
    rule = RULES["SGD"](weights, RuleSettings(**more))  # type: ignore[arg-type]
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = None if grad is None else torch.tensor(grad)
    rule.set_rate(1.0)
    rule.step()


def test_clipping_uses_the_sum_of_the_passes_over_all_parameters() -> None:
    # The norm of the sum is 5, of the mean 2.5: clipping at 4 shrinks by 4/5, and then the mean is taken.
    weights = [torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)]
    one_step(weights, [[3.0], [4.0]], clip_gradients=4.0, iter_size=2)
    assert [weight.item() for weight in weights] == pytest.approx([-1.2, -1.6])


@pytest.mark.parametrize(("limit", "expected"), [(5.0, -3.0), (6.0, -3.0), (-1.0, -3.0), (0.0, 0.0)])
def test_gradients_within_the_limit_are_not_clipped(limit: float, expected: float) -> None:
    weights = [torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)]
    one_step(weights, [[3.0], [4.0]], clip_gradients=limit)
    assert weights[0].item() == expected


def test_regularization_is_neither_clipped_nor_averaged() -> None:
    weight = torch.full((1,), 10.0, requires_grad=True)
    one_step([weight], [[8.0]], clip_gradients=4.0, iter_size=2, weight_decay=0.5)
    assert weight.item() == 10 - (4 / 2 + 0.5 * 10)


def test_a_parameter_without_gradient_decays_too() -> None:
    weight = torch.full((1,), 10.0, requires_grad=True)
    one_step([weight], [None], weight_decay=0.5)
    assert weight.item() == 5.0


def test_statistics_have_a_history_but_do_not_change() -> None:
    weight, statistic = torch.ones(2, requires_grad=True), torch.tensor([1.25, -0.0, 3.0])
    rule = RULES["Adam"]([weight, statistic], settings("Adam", weight_decay=0.1), lr_mults=[1.0, 0.0])
    weight.grad = torch.ones(2)
    rule.set_rate(1.0)
    rule.step()
    assert statistic.tolist() == [1.25, -0.0, 3.0]
    assert [tuple(history.shape) for history in rule.export_history()] == [(2,), (3,), (2,), (3,)]


def test_a_parameter_given_twice_is_refused() -> None:
    weight = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="a parameter is given twice"):
        RULES["SGD"]([weight, weight], RuleSettings())


def trained(kind: str, steps: int) -> tuple[UpdateRule, list[torch.Tensor]]:
    weights = [torch.ones(2, requires_grad=True), torch.ones(1, 3, requires_grad=True)]
    rule = RULES[kind](weights, settings(kind))
    train(rule, weights, 0, steps)
    return rule, weights


def train(rule: UpdateRule, weights: list[torch.Tensor], first: int, steps: int) -> None:
    for step in range(first, first + steps):
        for weight in weights:
            weight.grad = torch.full_like(weight, math.cos(step))
        rule.set_rate(0.1)
        rule.step()


@pytest.mark.parametrize("way", ["history", "state_dict"])
@pytest.mark.parametrize("kind", [*FORMULAS, "AdamW"])
def test_a_rule_continues_bit_for_bit_from_its_history(kind: str, way: str) -> None:
    _, expected = trained(kind, 7)
    rule, weights = trained(kind, 3)
    copies = [weight.detach().clone().requires_grad_() for weight in weights]
    other = RULES[kind](copies, settings(kind))
    if way == "history":
        other.import_history(rule.export_history(), rule.iteration)
    else:
        other.load_state_dict(copy.deepcopy(rule.state_dict()))
    train(other, copies, 3, 4)
    assert all(torch.equal(one, two) for one, two in zip(copies, expected, strict=True))


def test_histories_are_listed_by_kind_and_then_by_parameter() -> None:
    rule, _ = trained("Adam", 1)
    first, second = 0.1, 0.01  # 1 - momentum, 1 - momentum2, times a gradient of 1
    values = [history.flatten()[0].item() for history in rule.export_history()]
    assert values == pytest.approx([first, first, second, second])


def test_histories_of_old_files_with_four_axes_are_accepted() -> None:
    rule, _ = trained("SGD", 0)
    rule.import_history([torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 3)], 5)
    assert [tuple(history.shape) for history in rule.export_history()] == [(2,), (1, 3)]
    assert rule.iteration == 5


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            [(2,)],
            "the solver state holds 1 histories, but SGD over this net has 2; it was written for another net or by "
            "another update rule",
        ),
        (
            [(2,), (3, 1)],
            "history 1 of the solver state has shape (3, 1), but its parameter in this net has shape (1, 3); it was "
            "written for another net",
        ),
    ],
)
def test_histories_of_another_net_are_refused_and_change_nothing(shapes: list[tuple[int, ...]], message: str) -> None:
    rule, _ = trained("SGD", 2)
    before = [history.clone() for history in rule.export_history()]
    with pytest.raises(SolverError) as caught:
        rule.import_history([torch.full(shape, 9.0) for shape in shapes], 5)
    assert str(caught.value) == message
    assert all(torch.equal(one, two) for one, two in zip(before, rule.export_history(), strict=True))
    assert rule.iteration == 2


@pytest.mark.parametrize("layers", [1, 2])
def test_moments_of_one_layer_may_all_be_positive(layers: int) -> None:
    weights = [torch.ones(20, requires_grad=True) for _ in range(layers)] + [torch.ones(1, requires_grad=True)]
    rule = RULES["SGD"](weights, settings("SGD"))
    history = [torch.ones_like(weight) for weight in weights]
    if layers == 1:
        rule.check_signs(history)
    else:
        with pytest.raises(SolverError, match="only squares where SGD has none; it was written by another update rule"):
            rule.check_signs(history)
        history[0][3] = -1
        rule.check_signs(history)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_the_fused_kernel_equals_the_separate_steps(kind: str) -> None:
    start = [torch.randn(7, 5, generator=torch.Generator().manual_seed(1)), torch.ones(3)]
    at_once, in_steps = ([tensor.clone().requires_grad_() for tensor in start] for _ in range(2))
    rules = [
        RULES[kind](params, settings(kind, weight_decay=0.1), lr_mults=[1, 2], keep_steps=keep)
        for params, keep in ((at_once, False), (in_steps, True))
    ]
    for t, rate in enumerate([0.1, 0.1, 0.01, 0.0, 0.02]):
        for params in (at_once, in_steps):
            for param in params:
                param.grad = torch.sin(torch.arange(float(param.numel())) + t).view_as(param)
        for rule in rules:
            rule.set_rate(rate)
            rule.step()
    for one, other in zip([*at_once, *rules[0].export_history()], [*in_steps, *rules[1].export_history()], strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_and_parameters_may_have_different_memory_layouts() -> None:
    weight = torch.arange(24.0).view(2, 3, 2, 2).clone().requires_grad_()
    weight.grad = torch.arange(24.0).view(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    rule = RULES["SGD"]([weight], settings("SGD"))
    rule.set_rate(0.5)
    rule.step()
    assert torch.equal(weight.detach(), torch.arange(24.0).view(2, 3, 2, 2) / 2)


def test_weights_of_half_precision_are_updated_too() -> None:
    weight = torch.ones(40, dtype=torch.bfloat16, requires_grad=True)
    weight.grad = torch.ones_like(weight)
    rule = RULES["SGD"]([weight], settings("SGD"))
    rule.set_rate(0.5)
    rule.step()
    assert torch.equal(weight.detach(), torch.full((40,), 0.5, dtype=torch.bfloat16))


def test_sgd_without_momentum_steps_by_the_rate() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    rule = RULES["SGD"]([weight], RuleSettings("SGD", momentum=0.0))
    for _ in range(2):
        weight.grad = torch.tensor([1.0, -2.0])
        rule.set_rate(0.25)
        rule.step()
    assert torch.equal(weight.detach(), torch.tensor([2.5, 5.0]))
    assert torch.equal(weight.grad, torch.tensor([1.0, -2.0]))  # unchanged, for callbacks


TOWER = """
layer { name: "inSIDE" type: "Input" top: "xSIDE" input_param { shape { dim: 67 dim: 6 } } }
layer { name: "hSIDE" type: "InnerProduct" bottom: "xSIDE" top: "hSIDE" param { name: "hw" } param { name: "hb" }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "rSIDE" type: "ReLU" bottom: "hSIDE" top: "hSIDE" }
layer { name: "fSIDE" type: "InnerProduct" bottom: "hSIDE" top: "fSIDE" param { name: "fw" } param { name: "fb" }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""


@pytest.mark.parametrize(
    "rule",
    [
        'type: "SGD" momentum: 0.9 weight_decay: 0.01',
        'type: "Nesterov" momentum: 0.9',
        'type: "SGD" momentum: 0.9 weight_decay: 0.01 regularization_type: "L1"',
        'type: "Adam" momentum: 0.9',
        'type: "RMSProp" rms_decay: 0.9',
    ],
)
def test_no_rounding_reaches_the_last_bias_of_a_twin(rule: str) -> None:
    text = "".join(TOWER.replace("SIDE", side) for side in "01")
    text += 'layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 67 } } }\n'
    text += 'layer { name: "loss" type: "ContrastiveLoss" bottom: "f0" bottom: "f1" bottom: "y" top: "loss" }\n'
    torch.manual_seed(3)
    x0, x1, y = torch.randn(67, 6), torch.randn(67, 6), torch.arange(67) % 2
    settings = f"{rule} base_lr: 0.01 lr_policy: 'fixed' max_iter: 20 random_seed: 1 snapshot_after_train: false"
    solver = sp.Solver(f"net_param {{ {text} }} {settings}", data={"in0": [x0], "in1": [x1], "y": [y.float()]})
    assert any(node.type == "JoinBatches" for node in solver.net.fused_graph.nodes)
    solver.step(20)
    largest = float(solver.net.params["f0"][1].detach().abs().max())
    assert largest == 0
