"""Recurrent layers compared with plain loops, and their state between forward passes."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from layer_harness import make, run, values

import siamese_proto as sp
from siamese_proto.layers.base import RunState

STEPS, STREAMS, SIZE = 4, 3, 2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn(x, cont, static, h, params):
    """Return the outputs (T, N, D) and the last state, computed one stream and one step at a time."""
    input_weight, bias, *middle, recurrent_weight, output_weight, output_bias = params
    steps, streams = cont.shape
    y = np.zeros((steps, streams, len(bias)))
    for n in range(streams):
        state = h[n]
        for t in range(steps):
            total = input_weight @ x[t, n].ravel() + bias + recurrent_weight @ (cont[t, n] * state)
            if middle:
                total = total + middle[0] @ static[n].ravel()
            state = np.tanh(total)
            y[t, n] = np.tanh(output_weight @ state + output_bias)
        h[n] = state
    return y, [h]


def lstm(x, cont, static, h, c, params):
    """Return the same for an LSTM; the gates are in the order i, f, o, g."""
    input_weight, bias, *middle, recurrent_weight = params
    steps, streams = cont.shape
    size = len(bias) // 4
    y = np.zeros((steps, streams, size))
    for n in range(streams):
        for t in range(steps):
            gates = input_weight @ x[t, n].ravel() + bias + recurrent_weight @ (cont[t, n] * h[n])
            if middle:
                gates = gates + middle[0] @ static[n].ravel()
            i, f, o = (sigmoid(gates[k * size : (k + 1) * size]) for k in range(3))
            c[n] = cont[t, n] * f * c[n] + i * np.tanh(gates[3 * size :])
            h[n] = o * np.tanh(c[n])
            y[t, n] = h[n]
    return y, [h, c]


@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
@pytest.mark.parametrize("with_static", [False, True])
@pytest.mark.parametrize("exposed", [False, True])
def test_steps_run_one_by_one(kind, with_static, exposed):
    states = {"RNN": 1, "LSTM": 2}[kind]
    shapes = [(STEPS, STREAMS, 5, 6), (STEPS, STREAMS)]
    shapes += [(STREAMS, 7)] * with_static + [(1, STREAMS, SIZE)] * (states * exposed)
    setting = f"recurrent_param {{ num_output: {SIZE} expose_hidden: {str(exposed).lower()} }}"
    layer = make(f'type: "{kind}" {setting}', len(shapes), 1 + states * exposed)
    bottoms = [values(shape, seed) / 2 for seed, shape in enumerate(shapes)]
    bottoms[1] = torch.tensor([[0, 1, 1], [1, 1, 0], [1, 0.5, 1], [1, 1, 2]], dtype=torch.float64)
    params = [values(shape, 9 + seed) / 2 for seed, shape in enumerate(layer.param_shapes(shapes))]
    x, cont, *others = (bottom.numpy() for bottom in bottoms)
    start = [state[0].copy() for state in others[with_static:]] or [np.zeros((STREAMS, SIZE)) for _ in range(states)]
    loop = {"RNN": rnn, "LSTM": lstm}[kind]
    expected, ends = loop(x, cont, others[0] if with_static else None, *start, [param.numpy() for param in params])
    tops = run(layer, *bottoms, params=params)
    np.testing.assert_allclose(tops[0].numpy(), expected, rtol=1e-12, atol=1e-14)
    for top, end in zip(tops[1:], ends, strict=exposed):
        np.testing.assert_allclose(top[0].numpy(), end, rtol=1e-12, atol=1e-14)
        assert top.shape == (1, STREAMS, SIZE)


def test_blobs_have_caffes_order():
    def blobs(kind, bottoms):
        layer = make(f'type: "{kind}" recurrent_param {{ num_output: 5 }}', len(bottoms))
        return dict(zip((role.role for role in layer.params()), layer.param_shapes(bottoms), strict=True))

    x, cont, static = (4, 3, 2, 7), (4, 3), (3, 11)
    assert list(blobs("RNN", [x, cont, static]).items()) == [
        ("W_xh", (5, 14)),
        ("b_h", (5,)),
        ("W_xh_static", (5, 11)),
        ("W_hh", (5, 5)),
        ("W_ho", (5, 5)),
        ("b_o", (5,)),
    ]
    assert list(blobs("LSTM", [x, cont, static]).items()) == [
        ("W_xc", (20, 14)),
        ("b_c", (20,)),
        ("W_xc_static", (20, 11)),
        ("W_hc", (20, 5)),
    ]
    assert list(blobs("LSTM", [x, cont])) == ["W_xc", "b_c", "W_hc"]


def test_no_gradient_enters_through_exposed_tops_nor_leaves_to_exposed_bottoms():
    shapes = [(STEPS, STREAMS, 5), (STEPS, STREAMS), (1, STREAMS, SIZE), (1, STREAMS, SIZE)]
    layer = make('type: "LSTM" recurrent_param { num_output: 2 expose_hidden: true }', 4, 3)
    bottoms = [values(shape, seed).requires_grad_() for seed, shape in enumerate(shapes)]
    params = [values(shape, 9).requires_grad_() for shape in layer.param_shapes(shapes)]
    y, h, c = run(layer, *bottoms, params=params)
    assert not h.requires_grad
    assert not c.requires_grad
    y.sum().backward()
    assert [bottom.grad is not None for bottom in bottoms] == [True, False, False, False]
    assert all(param.grad.abs().sum() > 0 for param in params)


def test_the_forget_gates_gradient_is_that_of_caffes_cpu_whatever_cont_is():
    cont = torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64)
    before, x = values((1, 3, 2), 1).requires_grad_(), (values((1, 3, 8), 2) / 2).requires_grad_()
    c, h = run(make('type: "LSTMUnit"', 3, 2), before, x, cont)
    to_c, to_h = values((1, 3, 2), 3), values((1, 3, 2), 4)
    torch.autograd.backward([c, h], [to_c, to_h])
    i, f, o = (sigmoid(x.detach().numpy()[..., 2 * k : 2 * k + 2]) for k in range(3))
    g = np.tanh(x.detach().numpy()[..., 6:])
    f = f * cont.numpy()[..., None]
    old = before.detach().numpy()
    tanh = np.tanh(f * old + i * g)
    term = to_c.numpy() + to_h.numpy() * o * (1 - tanh**2)
    np.testing.assert_allclose(before.grad.numpy(), term * f, rtol=1e-12, atol=1e-14)
    parts = [term * g * i * (1 - i), term * old * f * (1 - f), to_h.numpy() * tanh * o * (1 - o), term * i * (1 - g**2)]
    np.testing.assert_allclose(x.grad.numpy(), np.concatenate(parts, -1), rtol=1e-12, atol=1e-14)


def test_the_cell_resets_at_the_start_of_a_sequence_even_with_an_infinite_gate():
    x = torch.zeros(1, 1, 4)
    x[0, 0, 1] = float("nan")  # the forget gate
    c, _ = run(make('type: "LSTMUnit"', 3, 2), torch.ones(1, 1, 1), x, torch.zeros(1, 1))
    assert c.item() == 0


# State between forward passes

NET = """
layer { name: "in" type: "Input" top: "x" top: "cont"
  input_param { shape { dim: 4 dim: 3 dim: 5 } shape { dim: 4 dim: 3 } } }
layer { name: "r" type: "KIND" bottom: "x" bottom: "cont" top: "y" recurrent_param { num_output: 2
  weight_filler { type: "uniform" min: -1 } bias_filler { type: "uniform" } } }
"""


def sequence(steps, streams, seed=0):
    return values((steps, streams, 5), seed, torch.float32)


@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_a_sequence_split_in_two_gives_the_same_result(kind):
    whole, halves = (sp.Net(NET.replace("KIND", kind), seed=1) for _ in range(2))
    x, cont = sequence(8, 3), torch.ones(8, 3)
    cont[5, 1] = 0
    expected = whole(x=x, cont=cont)["y"]
    parts = [halves(x=x[part], cont=cont[part])["y"] for part in (slice(4), slice(4, None))]
    torch.testing.assert_close(torch.cat(parts), expected)
    # A second pass does not start with zeros.
    assert not torch.equal(halves(x=x[:4], cont=cont[:4])["y"], parts[0])


def test_a_new_net_starts_with_zero_state_even_on_the_same_graph():
    graph = sp.build_graph(sp.parse_net(NET.replace("KIND", "LSTM")), phase="TEST")
    x, cont = sequence(4, 3), torch.ones(4, 3)
    first, second = sp.Net(graph, seed=1), sp.Net(graph, seed=1)
    tops = [first(x=x, cont=cont)["y"] for _ in range(2)]
    assert torch.equal(second(x=x, cont=cont)["y"], tops[0])
    assert torch.equal(second(x=x, cont=cont)["y"], tops[1])
    assert not torch.equal(tops[0], tops[1])


def test_fewer_streams_use_the_first_states_and_new_streams_start_with_zeros():
    layer = make('type: "RNN" recurrent_param { num_output: 2 }', 2)
    params = [values(shape, 5 + index) for index, shape in enumerate(layer.param_shapes([(1, 4, 5), (1, 4)]))]

    def go(streams, seed):
        x, cont = values((1, streams, 5), seed) / 4, torch.ones(1, streams)
        return x.numpy(), run(layer, x, cont.double(), params=params, state=state)[0]

    def expect(x, y, h):
        expected, _ = rnn(x, np.ones(x.shape[:2]), None, h, [param.numpy() for param in params])
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-14)

    state = RunState()
    memory = np.zeros((4, 2))  # like Caffe's blob, which is reallocated only when it grows
    for seed, streams in enumerate([4, 2, 4, 3]):
        expect(*go(streams, seed), memory[:streams])
    memory = np.zeros((6, 2))
    for seed, streams in enumerate([6, 1, 6]):
        expect(*go(streams, seed), memory[:streams])


@pytest.mark.slow
def test_the_recurrent_state_has_no_autograd_history():
    net = sp.Net(NET.replace("KIND", "LSTM"), phase="TRAIN", seed=1)
    x = sequence(4, 3).requires_grad_()
    assert net(x=x, cont=torch.ones(4, 3))["y"].requires_grad
    start = weakref.ref(x)  # an autograd history would keep it alive
    del x
    gc.collect()
    assert start() is None
    assert all(not state.requires_grad for states in net.run_state.carried.values() for state in states)
    net(x=sequence(4, 3), cont=torch.ones(4, 3))["y"].sum().backward()
    net(x=sequence(4, 3), cont=torch.ones(4, 3))["y"].sum().backward()  # works without the graph of the first pass


def test_layers_with_the_same_name_have_separate_states():
    text = NET.replace("KIND", "RNN") + NET.replace("KIND", "RNN").split("\n", 3)[3].replace('"y"', '"z"')
    net = sp.Net(text, seed=1)
    assert len({id(param) for param in net.parameters()}) == 10
    net(x=sequence(4, 3), cont=torch.ones(4, 3))
    first, second = net.run_state.carried.values()
    assert not torch.equal(first[0], second[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_the_recurrent_state_continues_when_compiled():
    torch.compiler.reset()
    plain, traced = (sp.Net(NET.replace("KIND", "LSTM"), seed=1) for _ in range(2))
    layer = traced.graph.nodes[1].layer

    def forward(x, cont, *params):
        return layer.forward((x, cont), params, traced.run_state)[0]

    compiled = torch.compile(forward, backend="aot_eager", fullgraph=True)
    for seed in range(3):
        x, cont = sequence(4, 3, seed), torch.ones(4, 3)
        torch.testing.assert_close(compiled(x, cont, *traced.params["r"]), plain(x=x, cont=cont)["y"])
    torch.compiler.reset()


def test_a_static_input_has_a_separate_matrix():
    text = NET.replace("KIND", "LSTM").replace('top: "cont"\n', 'top: "cont" top: "s"\n')
    text = text.replace("shape { dim: 4 dim: 3 } }", "shape { dim: 4 dim: 3 } shape { dim: 3 dim: 7 } }")
    net = sp.Net(text.replace('bottom: "cont"', 'bottom: "cont" bottom: "s"'))
    assert [tuple(param.shape) for param in net.params["r"]] == [(8, 5), (8,), (8, 7), (8, 2)]
    assert net.graph.nodes[1].layer.multiply_adds([(4, 3, 5), (4, 3), (3, 7)], []) == 3 * (
        4 * 8 * 5 + 8 * 7 + 4 * 8 * 2
    )


@pytest.mark.parametrize(
    ("cont", "by_torch"),
    [
        ([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]], True),
        ([[0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]], True),
        ([[0, 1, 0.5], [1, 1, 1], [1, 1, 1], [1, 1, 1]], False),
        ([[0, 0, 1], [1, 1, 0], [1, 1, 1], [0, 1, 1]], False),
    ],
    ids=["goes on", "begins", "half", "begins in the middle"],
)
def test_torchs_kernel_the_autograd_rule_and_single_steps_agree(cont, by_torch, monkeypatch):
    text = f"""
      layer {{ name: "in" type: "Input" top: "x" top: "cont"
        input_param {{ shape {{ dim: {STEPS} dim: {STREAMS} dim: 5 }} shape {{ dim: {STEPS} dim: {STREAMS} }} }} }}
      layer {{ name: "l" type: "LSTM" bottom: "x" bottom: "cont" top: "y" recurrent_param {{
        num_output: {SIZE} weight_filler {{ type: "gaussian" std: 1 }} bias_filler {{ type: "gaussian" std: 1 }} }} }}
    """
    x = torch.randn(STEPS, STREAMS, 5, generator=torch.Generator().manual_seed(3))
    calls = []
    torchs = torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda *arguments: (calls.append("torch's"), torchs(*arguments))[1])
    results = []
    for kind in (torch.float32, torch.float64, None):
        net = sp.Net(text, "TRAIN", seed=5).to(kind or torch.float64)
        if kind is None:
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        inputs = x.to(kind or torch.float64, copy=True).requires_grad_()
        net(x=x * 2, cont=torch.ones(STEPS, STREAMS))  # so that there is a state
        out = net(x=inputs, cont=torch.tensor(cont))["y"]
        weights = torch.arange(1.0, out.numel() + 1).view(out.shape)
        (out * weights).sum().backward()
        states = next(iter(net.run_state.carried.values()))
        results.append([t.double() for t in (out.detach(), inputs.grad, *states, *(p.grad for p in net.parameters()))])
    assert len(calls) == 1 + by_torch
    for way in results[1:]:
        for one, other in zip(results[0], way, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)
    for one, other in zip(*results[1:], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_changing_the_output_does_not_change_the_recurrent_state(kind):
    net = sp.Net(NET.replace("KIND", "LSTM"), phase="TEST", seed=1).to(kind)
    y = net(x=sequence(4, 3), cont=torch.ones(4, 3))["y"]
    (h, _) = next(iter(net.run_state.carried.values()))
    assert torch.equal(h, y[-1])
    y.zero_()
    assert h.abs().min() > 0
    assert h.untyped_storage().nbytes() == h.nbytes  # and not all steps


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_no_streams_give_no_outputs(kind):
    net = sp.Net(NET.replace("KIND", "LSTM"), phase="TRAIN", seed=1).to(kind)
    y = net(x=sequence(4, 3)[:, :0], cont=torch.ones(4, 0))["y"]
    assert y.shape[:2] == (4, 0)
    y.sum().backward()
    assert all(not param.grad.any() for param in net.parameters())
