"""The twins of prototxt/, each with one fault at a time: check reports only that fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import paths
import pytest
from published_nets import NETS

from siamese_proto import build_graph, parse_net
from siamese_proto.check.net import check_net
from siamese_proto.graph.ir import Finding, Node
from siamese_proto.graph.towers import Row, find_towers

FOLDER = paths.PROTOTXT
TWINS = ("mnist_siamese", "mnist_triplet", "half_twin", "cosine_siamese", "mnist_pair_classifier")
SHARING = {"shared-once", "partly-shared", "unshared-twin", "unshared-towers", "unread-input", "unlike-towers"}
_PARAM = re.compile(r'param \{ name: "([^"]*)"[^}]*\}')


def layers_of(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and name of each layer in a text."""
    plain = re.sub(r"#.*", lambda comment: " " * len(comment[0]), text)
    depth = start = 0
    for brace in re.finditer(r"layer\s*\{|\{|\}", plain):
        start = brace.start() if depth == 0 else start
        depth += -1 if brace[0] == "}" else 1
        if depth == 0:
            name = re.search(r'name: "([^"]*)"', plain[start : brace.end()])
            assert name is not None
            yield start, brace.end(), name[1]


def faults_of(layer: str, node: Node, twin: Node) -> Iterator[tuple[str, str]]:
    """Kinds of faults in the text of a layer, and the text with each."""
    yield "left out", ""
    yield "bottom misspelt", re.sub(r'bottom: "([^"]*)"', r'bottom: "\1q"', layer, count=1)
    yield "type misspelt", re.sub(r'type: "(\w+)"', r'type: "\1p"', layer, count=1)
    if node.message.bottom[0] != node.message.top[0]:
        yield "other tower", re.sub(r'bottom: "[^"]*"', f'bottom: "{twin.message.bottom[0]}"', layer, count=1)
    params = list(_PARAM.finditer(layer))
    for index, param in enumerate(params):
        before, after = layer[: param.start()], layer[param.end() :]
        yield f"name {index} misspelt", before + param[0].replace(param[1], f"{param[1]}x") + after
        yield f"name {index} left out", before + param[0].replace(f'name: "{param[1]}"', "") + after
        yield f"field {index} misspelt", before + param[0].replace("name:", "nam:") + after
    if params:
        yield "params left out", _PARAM.sub("", layer)
    if len(params) == 2:
        first, second = params[0][1], params[1][1]
        names = {first: second, second: first}
        yield "swapped", _PARAM.sub(lambda param: param[0].replace(param[1], names[param[1]]), layer)
    if "num_output" in layer:
        yield "outputs", re.sub(r"num_output: (\d+)", r"num_output: 1\1", layer)
        yield "no outputs", re.sub(r"num_output: \d+", "num_output: 0", layer)


def findings_of(text: str) -> list[Finding]:
    """Return the findings, one per kind and line: batch sizes may differ between phases."""
    return list({(finding.location.line, finding.code): finding for finding in check_net(text)}.values())


def lines_of(text: str) -> dict[str, int]:
    """Return the first line of each layer; the last one if a name is repeated."""
    return {name: text.count("\n", 0, start) + 1 for start, _, name in layers_of(text)}


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_one_fault_in_a_twin_has_no_second_finding(name: str) -> None:
    text = (FOLDER / name / "train_test.prototxt").read_text()
    (towers,) = find_towers(build_graph(parse_net(text)))
    place = {node.name: (row, index) for row in towers.rows for index, node in enumerate(row)}
    wrong = []
    for start, end, layer in layers_of(text):
        if layer not in place:
            continue
        row, index = place[layer]
        twin = row[index - 1]
        for kind, faulty in faults_of(text[start:end], row[index], twin):
            mutated = text[:start] + faulty + text[end:]
            findings = findings_of(mutated)
            if not is_right(kind, findings, row, row[index], mutated):
                wrong.append(f"{layer}, {kind}: {[str(finding) for finding in findings]}")
    assert wrong == []


def is_right(kind: str, findings: list[Finding], row: Row, node: Node, text: str) -> bool:
    """Whether a fault has the finding that it should have."""
    is_shared = bool(node.params) and len({other.params[0].param.id for other in row}) == 1
    if kind in ("swapped", "outputs") and is_shared and node is row[0] and len(row) > 2:
        # each of the other towers contradicts the owner
        return len(findings) == len(row) - 1 and {finding.severity for finding in findings} == {"error"}
    if not is_shared and "half_twin" in text:
        return len(findings) < 2  # the unshared layers of a half-twin may be anything
    if len(findings) != 1:
        return False
    if kind.startswith(("name", "params")):
        lines, line = lines_of(text), findings[0].location.line
        return findings[0].code in SHARING and lines[node.name] == max(each for each in lines.values() if each <= line)
    return True


PATHS = [*FOLDER.glob("*/train_test*.prototxt"), *FOLDER.glob("*/deploy*.prototxt")]


@pytest.mark.parametrize("path", sorted(PATHS), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_networks_of_the_project_have_no_finding_about_sharing(path: Path) -> None:
    assert [str(finding) for finding in check_net(path) if finding.code in SHARING | {"pair-bottoms"}] == []


@pytest.mark.parametrize("name", NETS)
def test_published_nets_have_no_finding_about_sharing(name: str) -> None:
    assert [str(finding) for finding in check_net(NETS[name][0]().text) if finding.code in SHARING] == []
