"""Which array goes to which parameter, and the report about it."""

from __future__ import annotations

import numpy as np
import pytest
from weight_nets import GOLDEN, TWIN, flagship, graph_of

from siamese_proto.errors import WeightsError
from siamese_proto.weights import StoredLayer, StoredWeights, match_weights, read_weights

WEIGHT, BIAS = np.arange(15, dtype=np.float32).reshape(5, 3), np.arange(5, dtype=np.float32)
LAST, LAST_BIAS = np.ones((4, 10), np.float32), np.ones(4, np.float32)

HINT = "; to fine-tune, rename the layer in the net, or skip it with --skip-mismatched (skip_mismatched=True)"


def stored(*layers: tuple[str, tuple[np.ndarray | None, ...]], owners_only: bool = False) -> StoredWeights:
    return StoredWeights(
        "w.caffemodel", tuple(StoredLayer(name, blobs=blobs) for name, blobs in layers), owners_only=owners_only
    )


def test_the_last_of_two_copies_is_used_and_their_difference_reported() -> None:
    file = stored(("ip_p", (WEIGHT + 2, BIAS)), ("ip", (WEIGHT, BIAS)), ("last", (LAST, LAST_BIAS)))
    values, report = match_weights(graph_of(TWIN), file)
    assert values["ip_0"].tolist() == WEIGHT.tolist()
    assert [(written.param, written.layers, written.difference) for written in report.twice] == [
        ("w", ("ip_p", "ip"), 2.0),
        ("c", ("ip_p", "ip"), 0.0),
    ]
    assert str(report) == (
        "w.caffemodel: 3 layers loaded\n"
        "  1 shared parameter stored more than once, all copies equal\n"
        "  w: the copies differ by up to 2; that of 'ip' was used, not that of 'ip_p'"
    )


def test_the_report_lists_missing_and_ignored_layers() -> None:
    file = stored(("ip", (WEIGHT, BIAS)), ("other", (BIAS,)), ("relu", ()))
    values, report = match_weights(graph_of(TWIN), file)
    assert sorted(values) == ["ip_0", "ip_1"]
    assert (report.loaded, report.missing, report.ignored) == (("ip",), ("last",), ("other",))
    assert str(report) == (
        "w.caffemodel: 1 layer loaded\n  not in the file, unchanged: 'last'\n  not in the net, ignored: 'other'"
    )


def test_one_tower_in_the_file_is_loaded_into_both() -> None:
    _, report = match_weights(graph_of(TWIN), stored(("ip_p", (WEIGHT, BIAS)), ("last", (LAST, LAST_BIAS))))
    assert report.missing == ()


def test_differences_include_nan_and_infinity() -> None:
    for other, difference in ((np.nan, np.inf), (np.inf, np.inf), (1.0, 1.0)):
        changed = WEIGHT.copy()
        changed[0, 0] = other
        _, report = match_weights(graph_of(TWIN), stored(("ip", (WEIGHT, BIAS)), ("ip_p", (changed, BIAS))))
        assert report.twice[0].difference == difference
    both = WEIGHT.copy()
    both[0, 0] = np.nan
    other_place = both.copy()
    other_place[1, 1] += 3
    for copy, difference in ((both.copy(), 0.0), (other_place, 3.0)):
        _, report = match_weights(graph_of(TWIN), stored(("ip", (both, BIAS)), ("ip_p", (copy, BIAS))))
        assert report.twice[0].difference == difference


def test_old_files_with_four_axes_match() -> None:
    old = (WEIGHT.reshape(1, 1, 5, 3), BIAS.reshape(1, 1, 1, 5))
    values, _ = match_weights(graph_of(TWIN), stored(("ip", old)))
    assert values["ip_0"].shape == (5, 3)
    assert values["ip_1"].shape == (5,)


def test_hdf5_may_omit_blobs_that_another_layer_owns() -> None:
    file = stored(("ip", (WEIGHT, BIAS)), ("ip_p", ()), ("last", (LAST, LAST_BIAS)), owners_only=True)
    values, report = match_weights(graph_of(TWIN), file)
    assert (len(values), report.missing, report.twice) == (4, (), ())


def test_the_files_of_the_lenet_twin_match() -> None:
    graph = flagship()
    values, report = match_weights(graph, read_weights(GOLDEN / "flagship" / "snap_iter_100.caffemodel"))
    assert len(values) == len(graph.params) == 10
    assert (len(report.loaded), report.missing, report.ignored) == (10, (), ())
    assert [written.difference for written in report.twice] == [0.0] * 10


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            stored(("ip", (WEIGHT.T, BIAS))),
            "w.caffemodel: layer 'ip': blob 0 (weight) has shape (3, 5) in the file, but (5, 3) in the net 'twin'"
            + HINT,
        ),
        (
            stored(("ip", (WEIGHT, BIAS.reshape(1, 5)))),
            "w.caffemodel: layer 'ip': blob 1 (bias) has shape (1, 5) in the file, but (5,) in the net 'twin'" + HINT,
        ),
        (
            stored(("ip", (WEIGHT.reshape(1, 5, 1, 3), BIAS))),
            "w.caffemodel: layer 'ip': blob 0 (weight) has shape (1, 5, 1, 3) in the file, but (5, 3) in the net "
            "'twin'" + HINT,
        ),
        (
            stored(("ip", (np.zeros((2, 1, 5, 3), np.float32), BIAS))),
            "w.caffemodel: layer 'ip': blob 0 (weight) has shape (2, 1, 5, 3) in the file, but (5, 3) in the net "
            "'twin'" + HINT,
        ),
        (
            stored(("last", (LAST,))),
            "w.caffemodel: layer 'last': 1 blob in the file, but 2 in the net 'twin'" + HINT,
        ),
        (
            stored(("last", (LAST, LAST_BIAS, BIAS))),
            "w.caffemodel: layer 'last': 3 blobs in the file, but 2 in the net 'twin'" + HINT,
        ),
        (
            stored(("last", (LAST,)), owners_only=True),
            "w.caffemodel: layer 'last': blob 1 (bias) is not in the file, and in the net 'twin' no other layer owns "
            "it; a .caffemodel holds the blobs of all layers",
        ),
        (
            stored(("Last", (LAST, LAST_BIAS)), ("conv", (BIAS,))),
            "w.caffemodel: belongs to another net: its layers 'Last', 'conv' are not in 'twin', whose layers with "
            "parameters are 'ip', 'ip_p', 'last'; did you mean 'last'?",
        ),
        (
            stored(("ip", ()), ("in", ())),
            "w.caffemodel: layer 'ip': 0 blobs in the file, but 2 in the net 'twin'" + HINT,
        ),
        (stored(("in", ()), ("data", ())), "w.caffemodel: none of its layers has parameters"),
    ],
)
def test_a_mismatch_is_one_error_line(file: StoredWeights, message: str) -> None:
    with pytest.raises(WeightsError) as raised:
        match_weights(graph_of(TWIN), file)
    assert str(raised.value) == message


def test_the_report_lists_layers_of_one_name_with_their_own_entries() -> None:
    text = TWIN.replace('"ip_p"', '"ip"')
    apart = graph_of(text.replace('param { name: "w" } param { name: "c" }', ""))
    first, second = ("ip", (WEIGHT, BIAS)), ("ip", (WEIGHT + 1, BIAS))
    values, report = match_weights(apart, stored(first, second))
    weights = [values[node.params[0].param.id].tolist() for node in apart.nodes if node.name == "ip"]
    assert weights == [WEIGHT.tolist(), (WEIGHT + 1).tolist()]
    assert report.repeated == ("ip",)
    assert (
        "  layers named 'ip': each got its own entry of the file, in order; Caffe loads all entries into the "
        "first of them"
    ) in str(report).splitlines()
    assert match_weights(graph_of(text), stored(first, second))[1].repeated == ()  # they share: no difference
    assert match_weights(apart, stored(first, second, first))[1].repeated == ()  # all go to the first, as in Caffe


def test_skip_mismatched_skips_and_lists_layers_of_other_shapes() -> None:
    file = stored(("ip", (WEIGHT, BIAS)), ("last", (LAST[:3], LAST_BIAS[:3])), ("ip_p", (WEIGHT, BIAS[:2])))
    values, report = match_weights(graph_of(TWIN), file, skip_mismatched=True)
    assert {name: value.tolist() for name, value in values.items()} == {
        "ip_0": WEIGHT.tolist(),
        "ip_1": BIAS.tolist(),
    }
    assert (report.loaded, report.missing, report.ignored) == (("ip",), (), ())
    assert str(report) == (
        "w.caffemodel: 1 layer loaded\n"
        "  skipped, unchanged: layer 'last': blob 0 (weight) has shape (3, 10) in the file, but (4, 10) in the "
        "net 'twin'\n"
        "  skipped, unchanged: layer 'ip_p': blob 1 (bias) has shape (2,) in the file, but (5,) in the net 'twin'"
    )


def test_a_file_without_a_matching_layer_is_an_error() -> None:
    with pytest.raises(WeightsError) as raised:
        match_weights(graph_of(TWIN), stored(("last", (LAST,))), skip_mismatched=True)
    assert str(raised.value) == (
        "w.caffemodel: layer 'last': no layer matches: 1 blob in the file, but 2 in the net 'twin'"
    )
