"""Work grows with the number of layers, not with its square: calls are counted for a net and for one twice as long."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

import siamese_proto as sp
from siamese_proto.check.net import check_net
from siamese_proto.export.deploy import deploy
from siamese_proto.export.summary import summarize
from siamese_proto.graph.comparison import find_comparison
from siamese_proto.graph.ir import Graph
from siamese_proto.net.program import make_plan
from siamese_proto.passes.pipeline import optimize

pytestmark = pytest.mark.slow


def inputs(count: int) -> str:
    return "".join(
        f'layer {{ name: "x{number}" type: "Input" top: "x{number}" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}\n'
        for number in range(count)
    )


SIMILAR = 'layer { name: "sim" type: "Input" top: "sim" input_param { shape { dim: 2 } } }\n'


def product(name: str, bottom: str, top: str, shared: str = "") -> str:
    params = f'param {{ name: "{shared}_w" }} param {{ name: "{shared}_b" }}' if shared else ""
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {params} '
        "inner_product_param { num_output: 3 } }\n"
    )


def loss(name: str, first: str, second: str) -> str:
    return (
        f'layer {{ name: "{name}" type: "ContrastiveLoss" bottom: "{first}" bottom: "{second}" bottom: "sim" '
        f'top: "{name}" }}\n'
    )


def deep_twin(count: int, misspelt: str = "") -> str:
    """Two towers of this many layers; `misspelt` is added to every second shared name of the second one."""
    text = inputs(2) + SIMILAR
    for side in "pq":
        for number in range(count):
            bottom = f"{side}{number}" if number else f"x{'pq'.index(side)}"
            odd = misspelt if side == "q" and number % 2 else ""
            text += product(f"{side}{number}", bottom, f"{side}{number + 1}", f"{number}{odd}")
    return text + loss("loss", f"p{count}", f"q{count}")


def many_towers(count: int, data: str = "x{}", shared: str = "t") -> str:
    """This many towers of one layer, each compared with the next."""
    text = inputs(count) + SIMILAR
    text += "".join(product(f"t{number}", data.format(number), f"f{number}", shared) for number in range(count))
    return text + "".join(loss(f"loss{number}", f"f{number}", f"f{(number + 1) % count}") for number in range(count))


def chain(count: int) -> str:
    text = inputs(1)
    return text + "".join(product(f"t{number}", f"x{number}", f"x{number + 1}") for number in range(count))


def heads(count: int) -> str:
    """A chain whose every layer is followed by a loss and an output that nothing reads."""
    text = chain(count)
    for number in range(count):
        text += (
            f'layer {{ name: "e{number}" type: "EuclideanLoss" bottom: "x{number}" bottom: "x0" top: "e{number}" }}\n'
        )
        text += f'layer {{ name: "o{number}" type: "Power" bottom: "x{number}" top: "o{number}" }}\n'
    return text


def graph(text: str) -> Graph:
    return sp.build_graph(text, "TRAIN")


def plan_all(text: str) -> None:
    net = graph(text)
    todo = make_plan(net, [blob for blob in net.blobs() if blob.startswith(("x", "sim"))])
    assert all(top.id in todo.available for node in todo.nodes for top in node.tops)


def calls(function: Callable[[str], Any], text: str) -> int:
    """How many functions are called and generators resumed."""
    count = 0

    def add(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    function(text)  # one-time loading and building
    sys.setprofile(add)
    try:
        function(text)
    finally:
        sys.setprofile(None)
    return count


NETS: dict[str, Callable[[int], str]] = {
    "chain": chain,
    "chain without database": lambda count: chain(count).replace(
        inputs(1), 'layer { name: "d" type: "Data" top: "x0" data_param { source: "none" batch_size: 2 } }\n'
    ),
    "misspelt types": lambda count: chain(count).replace("InnerProduct", "InnerProdukt"),
    "misspelt bottoms": lambda count: chain(count).replace('bottom: "x', 'bottom: "xx'),
    "misspelt fields": lambda count: chain(count).replace("num_output", "num_outputs"),
    "misspelt shared names": lambda count: deep_twin(count, "x"),
    "deep twin": deep_twin,
    "many towers": many_towers,
    "many towers on one input": lambda count: many_towers(count, data="x0"),
    "many towers that share nothing": lambda count: many_towers(count, shared=""),
    "many outputs": heads,
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_checking_twice_the_layers_takes_twice_the_work(net: Callable[[int], str]) -> None:
    few, many = (calls(check_net, net(count)) for count in (60, 120))
    assert many < 2.5 * few


SOUND = {name: NETS[name] for name in ("chain", "deep twin", "many towers", "many towers that share nothing")}
WORK: dict[str, Callable[[str], Any]] = {
    "optimize": lambda text: optimize(graph(text)),
    "deploy": lambda text: deploy(sp.parse_net(text)),
    "plan": plan_all,
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
@pytest.mark.parametrize("net", SOUND.values(), ids=SOUND)
def test_building_twice_the_layers_takes_twice_the_work(net: Callable[[int], str], work: Callable[[str], Any]) -> None:
    few, many = (calls(work, net(count)) for count in (60, 120))
    assert many < 2.5 * few


def test_the_outputs_and_losses_of_a_long_net_are_found_in_one_pass() -> None:
    few, many = (calls(lambda text: deploy(sp.parse_net(text)), heads(count)) for count in (60, 120))
    assert many < 2.5 * few


def test_the_label_of_two_features_is_found_in_one_pass() -> None:
    few, many = (calls(lambda text: find_comparison(graph(text), ["x3", "x4"]), heads(count)) for count in (60, 120))
    assert many < 2.5 * few


def test_the_table_of_a_long_net_is_made_in_one_pass() -> None:
    few, many = (calls(lambda text: summarize(graph(text)), deep_twin(count)) for count in (60, 120))
    assert many < 2.5 * few
