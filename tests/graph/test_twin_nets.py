"""Typical nets: correct ones, for which check reports nothing, and twins with one fault and one finding."""

# ruff: noqa: E501  # one layer and one finding per line

from __future__ import annotations

import re

import pytest
from nets import net

from siamese_proto.check.net import check_net

PAIR = "in Input > data data_p sim ; ; 2x3x12x13 2x3x12x13 2\n"
MISSING = "in Data > pair sim ; ; source: 'no such database' batch_size: 2\ncut Slice pair > data data_p ; ; axis: 1\n"
TOWER = """conv1@ Convolution data@ ; conv1_w$ conv1_b$ ; num_output: 4 kernel_size: 3
pool1@ Pooling conv1@ ; ; pool: MAX kernel_size: 2 stride: 2
conv2@ Convolution pool1@ ; conv2_w$ conv2_b$ ; num_output: 7 kernel_size: 2
relu2@ ReLU conv2@ > conv2@
conv3@ Convolution conv2@ ; conv3_w$ conv3_b$ ; num_output: 7 kernel_size: 2
ip@ InnerProduct conv3@ ; ip_w$ ip_b$ ; num_output: 9
feat@ InnerProduct ip@ ; feat_w$ feat_b$ ; num_output: 5
"""
LOSS = "loss ContrastiveLoss feat feat_p sim"


def tower(side: str = "", private: str = "") -> str:
    """Layers and blobs end in `side`, names of parameters in `private`."""
    return TOWER.replace("@", side).replace("$", private)


def unnamed(text: str) -> str:
    """Without names of parameters."""
    lines = []
    for line in text.splitlines():
        wires, *rest = line.split(";")
        lines.append(";".join([wires, "", rest[1]]) if len(rest) == 2 else line)
    return "\n".join(lines) + "\n"


def mixed(count: int, below: str, above: str, side: str) -> str:
    """A tower whose first `count` lines have names with one ending and whose others have another."""
    lines = tower(side, below).splitlines(keepends=True), tower(side, above).splitlines(keepends=True)
    return "".join(lines[0][:count] + lines[1][count:])


TWIN = tower() + tower("_p")
TRIPLE = "in Input > data data_p data_n ; ; 2x3x12x13 2x3x12x13 2x3x12x13\n"
TRIPLET_LOSS = "loss TripletLoss feat feat_p feat_n"
DIFFERENCE = "diff Eltwise feat feat_p ; ; operation: SUM coeff: 1 coeff: -1\n"
DECISION = "decision InnerProduct {} ; ; num_output: 2\nloss SoftmaxWithLoss decision sim"
LABEL = "in Input > data label ; ; 2x3x16x20 2\n"


def resnet_block(number: int, bottom: str) -> str:
    return f"""b{number}a Convolution {bottom} ; ; num_output: 3 kernel_size: 3 pad: 1
bn{number}a BatchNorm b{number}a > b{number}a
sc{number}a Scale b{number}a > b{number}a ; ; bias_term: true
r{number}a ReLU b{number}a > b{number}a
b{number}b Convolution b{number}a ; ; num_output: 3 kernel_size: 3 pad: 1
sum{number} Eltwise {bottom} b{number}b
r{number} ReLU sum{number} > sum{number}
"""


def many(count: int) -> str:
    """Return towers that share all parameters, over the tops of one input layer."""
    tops = " ".join(f"data{number}" for number in range(count))
    shapes = " ".join(["2x3x12x13"] * count)
    features = " ".join(f"feat{number}" for number in range(count))
    towers = "".join(tower(str(number)) for number in range(count))
    return f"in Input > {tops} ; ; {shapes}\n{towers}all Concat {features}"


CORRECT = {
    "a twin": PAIR + TWIN + LOSS,
    "a twin whose database is missing": MISSING + TWIN + LOSS,
    "a twin with a distance": PAIR + TWIN + "d Distance feat feat_p\nloss EuclideanLoss d sim",
    "a twin with a difference": PAIR + TWIN + DIFFERENCE + "abs AbsVal diff\n" + DECISION.format("abs"),
    "a twin that is joined": PAIR + TWIN + "both Concat feat feat_p\n" + DECISION.format("both"),
    "a twin with a product": PAIR + TWIN + "both Eltwise feat feat_p ; ; operation: PROD\n" + DECISION.format("both"),
    "a twin in which only weights have names": PAIR + "".join(f"ip{side} InnerProduct data{side} ; w ; num_output: 4 bias_term: false\n" for side in ("", "_p")) + "loss ContrastiveLoss ip ip_p sim",
    "a triplet": TRIPLE + tower() + tower("_p") + tower("_n") + TRIPLET_LOSS,
    "a triplet of two distances": TRIPLE + tower() + tower("_p") + tower("_n") + "near Distance feat feat_p\nfar Distance feat feat_n",
    "four towers": many(4),
    "nine towers": many(9),
    "a half-twin, upper layers apart": PAIR + mixed(5, "", "", "") + mixed(5, "", "_q", "_p") + LOSS,
    "a half-twin, lower layers apart": PAIR + tower() + mixed(3, "_q", "", "_p") + LOSS,
    "a half-twin whose last layer is named after itself": PAIR + tower() + tower("_p").replace("feat_w", "feat_p_w").replace("feat_b", "feat_p_b") + LOSS,
    "a half-shared triplet, the anchor apart below": TRIPLE + mixed(4, "_a", "", "") + tower("_p") + tower("_n") + TRIPLET_LOSS,
    "a half-shared triplet, the anchor's first layer apart": TRIPLE + mixed(1, "_a", "", "") + tower("_p") + tower("_n") + TRIPLET_LOSS,
    "a half-shared triplet, the anchor apart above": TRIPLE + mixed(5, "", "_a", "") + tower("_p") + tower("_n") + TRIPLET_LOSS,
    "a half-shared triplet, the anchor's first layers without names": TRIPLE + "".join(unnamed(line) if number < 3 else line for number, line in enumerate(tower().splitlines(keepends=True))) + tower("_p") + tower("_n") + TRIPLET_LOSS,
    "two pairs of towers that share their upper layers": many(4).replace("conv1_w", "v").replace("conv1_b", "c").replace("data2 ; v c", "data2 ; v2 c2").replace("data3 ; v c", "data3 ; v2 c2"),
    "a pseudo-siamese net, all named": PAIR + tower("", "_l") + tower("_p", "_r") + LOSS,
    "a pseudo-siamese net of other widths": PAIR + unnamed(tower()) + unnamed(tower("_p").replace("num_output: 7", "num_output: 8")) + LOSS,
    "a pseudo-siamese net of a dense and a convolutional tower": PAIR + "a InnerProduct data ; ; num_output: 5\n" + unnamed(tower("_p")) + "loss ContrastiveLoss a feat_p sim",
    "two modalities that are summed": PAIR + unnamed(TWIN) + "sum Eltwise feat feat_p\n" + DECISION.format("sum"),
    "two modalities that are joined": PAIR + unnamed(TWIN) + "both Concat feat feat_p\n" + DECISION.format("both"),
    "two modalities with a regression": PAIR + unnamed(TWIN) + "loss EuclideanLoss feat feat_p",
    "single layers that meet in a loss": "x Input ; ; 10x3\ny Input ; ; 10x3\nipx InnerProduct x ; ; num_output: 10\nipy InnerProduct y ; ; num_output: 10\nloss EuclideanLoss ipx ipy",
    "a deploy net without names": "in Input > data data_p ; ; 2x3x12x13 2x3x12x13\n" + unnamed(TWIN) + "d Distance feat feat_p",
    "a deploy net with a learned score": "in Input > data data_p ; ; 2x3x12x13 2x3x12x13\n" + unnamed(TWIN) + DIFFERENCE + "score InnerProduct diff ; ; num_output: 1",
    "a deploy net of one tower": "in Input > data ; ; 1x3x12x13\n" + tower(),
    "a plain classifier with names": LABEL + tower() + "loss SoftmaxWithLoss feat label",
    "a plain classifier without names": LABEL + unnamed(tower()) + "loss SoftmaxWithLoss feat label",
    "heads of different widths on shared towers": PAIR + TWIN + "a InnerProduct feat ; ; num_output: 20\nb InnerProduct feat_p ; ; num_output: 100\nla SoftmaxWithLoss a sim\nlb SoftmaxWithLoss b sim",
    "heads of different widths, the database missing": MISSING + TWIN + "a InnerProduct feat ; ; num_output: 20\nb InnerProduct feat_p ; ; num_output: 100\nla SoftmaxWithLoss a sim\nlb SoftmaxWithLoss b sim",
    "three tasks on one trunk": LABEL + unnamed(tower()) + "".join(f"head{number} InnerProduct feat ; ; num_output: 3\nloss{number} SoftmaxWithLoss head{number} label\n" for number in range(3)),
    "a twin with shared heads": PAIR + TWIN + "".join(f"id{side} InnerProduct feat{side} ; id_w id_b ; num_output: 6\n" for side in ("", "_p")) + LOSS + "\nl1 SoftmaxWithLoss id sim\nl2 SoftmaxWithLoss id_p sim",
    "a tied autoencoder": "x Input ; ; 2x6\nencode InnerProduct x ; w b ; num_output: 4\ndecode InnerProduct encode ; w c ; num_output: 6 transpose: true\nloss EuclideanLoss decode x",
    "a square tied autoencoder": "x Input ; ; 2x6\nencode InnerProduct x ; w b ; num_output: 6\ndecode InnerProduct encode ; w ; num_output: 6 bias_term: false\nloss EuclideanLoss decode x",
    "heads of as many values in other shapes": PAIR + TWIN + "a InnerProduct feat ; ; num_output: 6\nb InnerProduct feat_p ; ; num_output: 6 transpose: true\nla SoftmaxWithLoss a sim\nlb SoftmaxWithLoss b sim",
    "weights tied along the depth": "x Input ; ; 2x6\na InnerProduct x ; w b ; num_output: 6\nr ReLU a > a\nb InnerProduct a ; w b ; num_output: 6\nc InnerProduct b ; own ; num_output: 6",
    "a residual net": LABEL + "c Convolution data ; ; num_output: 3 kernel_size: 3\n" + resnet_block(1, "c") + resnet_block(2, "sum1") + "fc InnerProduct sum2 ; ; num_output: 4\nloss SoftmaxWithLoss fc label",
    "an inception block": LABEL + "a Convolution data ; ; num_output: 3 kernel_size: 1\nb Convolution data ; ; num_output: 3 kernel_size: 1\nc Convolution b ; ; num_output: 5 kernel_size: 3 pad: 1\nout Concat a c\nfc InnerProduct out ; ; num_output: 4\nloss SoftmaxWithLoss fc label",
    "two equal paths": LABEL + "a Convolution data ; ; num_output: 3 kernel_size: 3\nb Convolution data ; ; num_output: 3 kernel_size: 3\nd Eltwise a b ; ; operation: SUM coeff: 1 coeff: -1\nfc InnerProduct d ; ; num_output: 4\nloss SoftmaxWithLoss fc label",
    "an FCN with a skip": LABEL + "a Convolution data ; ; num_output: 3 kernel_size: 3 pad: 1\np Pooling a ; ; pool: MAX kernel_size: 2 stride: 2\ns Convolution p ; ; num_output: 2 kernel_size: 1\nup Deconvolution s ; ; num_output: 2 kernel_size: 2 stride: 2\nskip Convolution a ; ; num_output: 2 kernel_size: 1\ncrop Crop skip up\nscore Eltwise up crop",
    "a U-Net": LABEL + "a Convolution data ; ; num_output: 3 kernel_size: 3 pad: 1\np Pooling a ; ; pool: MAX kernel_size: 2 stride: 2\nb Convolution p ; ; num_output: 6 kernel_size: 3 pad: 1\nup Deconvolution b ; ; num_output: 3 kernel_size: 2 stride: 2\ncat Concat a up\nc Convolution cat ; ; num_output: 2 kernel_size: 3 pad: 1",
    "heads shared by the levels of a pyramid": LABEL + "a Convolution data ; ; num_output: 3 kernel_size: 3\nb Convolution a ; ; num_output: 3 kernel_size: 3\nha Convolution a ; w b ; num_output: 2 kernel_size: 1\nra ReLU ha > ha\nhb Convolution b ; w b ; num_output: 2 kernel_size: 1\nrb ReLU hb > hb",
    "one tower over two scales": LABEL + "half Pooling data ; ; pool: AVE kernel_size: 2 stride: 2\na Convolution data ; w b ; num_output: 4 kernel_size: 3\nb Convolution half ; w b ; num_output: 4 kernel_size: 3",
    "towers with parameters of every kind": PAIR + "".join(f"c{side} Convolution data{side} ; w ; num_output: 4 kernel_size: 3 bias_term: false\np{side} PReLU c{side} > c{side} ; slope\ns{side} Scale c{side} > c{side} ; scale shift ; bias_term: true\nf{side} InnerProduct c{side} ; fw fb ; num_output: 3\n" for side in ("", "_p")) + "loss ContrastiveLoss f f_p sim",
    "a twin with an additional classifier": PAIR + TWIN + LOSS + "\nside InnerProduct conv2 ; own_w own_b ; num_output: 4\nextra SoftmaxWithLoss side sim",
    "a twin of two data layers": "l Input > data ; ; 2x3x12x13\nr Input > data_p ; ; 2x3x12x13\ns Input > sim ; ; 2\n" + TWIN + LOSS,
    "a third image that no layer reads": "in Input > data data_p other sim ; ; 2x3x12x13 2x3x12x13 2x3x12x13 2\n" + TWIN + LOSS,
    "towers that read one blob if no other is unused": "in Input > data sim ; ; 2x3x12x13 2\n" + tower() + tower("_p").replace("data_p", "data") + LOSS,
    "towers that read one blob next to an input of another shape": "in Input > data ; ; 2x3x12x13\nmask Input ; ; 2x3x12x14\nnoise DummyData ; ; shape { dim: 2 dim: 3 dim: 12 dim: 13 }\ns Input > sim ; ; 2\n" + tower() + tower("_p").replace("data_p", "data") + LOSS,
    "a twin with a layer of unknown type": PAIR + "n Odd data > q\n" + TWIN.replace("conv1 Convolution data ", "conv1 Convolution q ") + LOSS,
}  # fmt: skip  # one layer per line


@pytest.mark.parametrize("case", CORRECT)
def test_a_correct_net_has_no_finding_about_sharing(case: str) -> None:
    findings = [str(finding) for finding in check_net(net(CORRECT[case])) if finding.code != "unknown-layer"]
    assert findings == []


def test_there_are_enough_correct_nets() -> None:
    assert len(CORRECT) >= 40


SIAMESE = PAIR + TWIN + LOSS
WITHOUT_DATABASE = MISSING + TWIN + LOSS
TRIPLET = TRIPLE + tower() + tower("_p") + tower("_n") + TRIPLET_LOSS
HALF_TWIN = PAIR + mixed(5, "", "", "") + mixed(5, "", "_q", "_p") + LOSS
HALF_TRIPLET = TRIPLE + mixed(4, "_a", "", "") + tower("_p") + tower("_n") + TRIPLET_LOSS
NINE = many(9)
WEIGHTS = (
    PAIR
    + "".join(
        f"a{side} InnerProduct data{side} ; a_w ; num_output: 6\nb{side} InnerProduct a{side} ; b_w ; num_output: 4\n".replace(
            "num", "bias_term: false num"
        )
        for side in ("", "_p")
    )
    + "loss ContrastiveLoss b b_p sim"
)
ONCE = "{}: warning[shared-once]: layer '{}': param name '{}' is used by this layer only, so its {} is not shared; did you mean '{}', as in layer '{}'?"
LACKS = "{}: warning[partly-shared]: layer '{}': shares parameters with layer '{}', but not its {} ('{}' there; give it this name here too)"
STRANGER = "{}: warning[unshared-twin]: layer '{}': is the counterpart of layer '{}' in another tower, but shares no parameters with it, unlike other layers of these towers; give both the same param names"
UNLIKE = "{}: error[net]: layer '{}': cannot share param '{}' with its owner, layer '{}': the owner's shape is {}, this layer's is {}"
SAME_INPUT = "{}: warning[unread-input]: layer '{}': reads '{}', as layer '{}' does, and no layer reads '{}'; should it read '{}'?"
LEFT_OUT = "{}: warning[unlike-towers]: layer '{}': reads '{}', but another tower has layer '{}' of type ReLU there; it computes '{}', {}, so the towers compute different functions"
APART = "9: warning[unshared-towers]: layer 'conv1_p': the tower of 5 layers that starts here has the same structure as the tower of layer 'conv1', but they share no parameters and will learn different weights; give their layers the same param names"
BOTTOMS = "{}: warning[pair-bottoms]: layer '{}': {}"
WIDE = SIAMESE.replace("num_output: 9", "num_output: 5")

# A net, a replacement in it, and the resulting output of check.
FAULTS = {
    "a misspelt weight": (SIAMESE, "pool1_p ; conv2_w", "pool1_p ; conv2_ww", ONCE.format(11, "conv2_p", "conv2_ww", "weight", "conv2_w", "conv2")),
    "a misspelt bias in the first tower": (SIAMESE, "pool1 ; conv2_w conv2_b", "pool1 ; conv2_w con2_b", ONCE.format(4, "conv2", "con2_b", "bias", "conv2_b", "conv2_p")),
    "a name that is not like the right one": (SIAMESE, "pool1_p ; conv2_w", "pool1_p ; kernel", ONCE.format(11, "conv2_p", "kernel", "weight", "conv2_w", "conv2")),
    "a misspelt weight, the database missing": (WITHOUT_DATABASE, "pool1_p ; conv2_w", "pool1_p ; conv2_ww", ONCE.format(12, "conv2_p", "conv2_ww", "weight", "conv2_w", "conv2")),
    "a misspelt weight in a triplet's anchor": (TRIPLET, "pool1 ; conv2_w", "pool1 ; conv2_v", ONCE.format(4, "conv2", "conv2_v", "weight", "conv2_w", "conv2_p")),
    "a misspelt bias in a triplet's negative": (TRIPLET, "pool1_n ; conv2_w conv2_b", "pool1_n ; conv2_w conv_b", ONCE.format(18, "conv2_n", "conv_b", "bias", "conv2_b", "conv2")),
    "a misspelt bias in one of nine towers": (NINE, "pool14 ; conv2_w conv2_b", "pool14 ; conv2_w conv2_bb", ONCE.format(32, "conv24", "conv2_bb", "bias", "conv2_b", "conv20")),
    "a misspelt weight in a half-twin": (HALF_TWIN, "pool1_p ; conv2_w", "pool1_p ; conv2_ww", ONCE.format(11, "conv2_p", "conv2_ww", "weight", "conv2_w", "conv2")),
    "a misspelt bias where all of a half-shared triplet share": (HALF_TRIPLET, "ip_p ; feat_w feat_b", "ip_p ; feat_w fea_b", ONCE.format(15, "feat_p", "fea_b", "bias", "feat_b", "feat")),
    "a misspelt bias where two of a half-shared triplet share": (HALF_TRIPLET, "pool1_n ; conv2_w conv2_b", "pool1_n ; conv2_w conv2_bb", ONCE.format(18, "conv2_n", "conv2_bb", "bias", "conv2_b", "conv2_p")),
    "a misspelt weight of layers without a bias": (WEIGHTS, "a_p ; b_w", "a_p ; b_ww", ONCE.format(5, "b_p", "b_ww", "weight", "b_w", "b")),
    "a misspelt weight of layers without a bias in the first tower": (WEIGHTS, "a ; b_w", "a ; b_ww", ONCE.format(3, "b", "b_ww", "weight", "b_w", "b_p")),
    "the first layer of a triplet's negative with separate names": (TRIPLET, "data_n ; conv1_w conv1_b", "data_n ; x_w x_b", STRANGER.format(16, "conv1_n", "conv1")),
    "the name of another layer": (SIAMESE, "conv2_p ; conv3_w conv3_b", "conv2_p ; conv3_w conv2_b", "13: warning[partly-shared]: layer 'conv3_p': shares parameters with layer 'conv3', but not its bias ('conv2_b' here, 'conv3_b' there)"),
    "a name left out": (SIAMESE, "conv3_p ; ip_w ip_b", "conv3_p ; ip_w -", LACKS.format(14, "ip_p", "ip", "bias", "ip_b")),
    "an entry left out in the first tower": (SIAMESE, "conv3 ; ip_w ip_b", "conv3 ; ip_w", LACKS.format(7, "ip", "ip_p", "bias", "ip_b")),
    "an entry left out in one of nine towers": (NINE, "pool14 ; conv2_w conv2_b", "pool14 ; conv2_w", LACKS.format(32, "conv24", "conv20", "bias", "conv2_b")),
    "an entry left out below the parting of a half-twin": (HALF_TWIN, "data_p ; conv1_w conv1_b", "data_p ; conv1_w", LACKS.format(9, "conv1_p", "conv1", "bias", "conv1_b")),
    "all entries left out": (SIAMESE, "conv3_p ; ip_w ip_b", "conv3_p ;", STRANGER.format(14, "ip_p", "ip")),
    "all entries left out in the first tower": (SIAMESE, "conv3 ; ip_w ip_b", "conv3 ;", STRANGER.format(7, "ip", "ip_p")),
    "all entries left out in a triplet's anchor": (TRIPLET, "data ; conv1_w conv1_b", "data ;", STRANGER.format(2, "conv1", "conv1_p")),
    "all entries left out in a triplet's negative": (TRIPLET, "pool1_n ; conv2_w conv2_b", "pool1_n ;", STRANGER.format(18, "conv2_n", "conv2")),
    "all entries left out above the parting of a half-twin": (HALF_TWIN, "data_p ; conv1_w conv1_b", "data_p ;", STRANGER.format(9, "conv1_p", "conv1")),
    "weight and bias swapped": (SIAMESE, "conv3_p ; ip_w ip_b", "conv3_p ; ip_b ip_w", UNLIKE.format(14, "ip_p", "ip_b", "ip", "(9,)", "(9, 84)")),
    "weight and bias swapped, the database missing": (WITHOUT_DATABASE, "conv3_p ; ip_w ip_b", "conv3_p ; ip_b ip_w", UNLIKE.format(15, "ip_p", "ip_b", "ip", "(9,)", "(9, ?)")),
    "another number of outputs": (SIAMESE, "ip_p ; feat_w feat_b ; num_output: 5", "ip_p ; feat_w feat_b ; num_output: 6", UNLIKE.format(15, "feat_p", "feat_w", "feat", "(5, 9)", "(6, 9)")),
    "another number of outputs, the database missing": (WITHOUT_DATABASE, "conv3_p ; ip_w ip_b ; num_output: 9", "conv3_p ; ip_w ip_b ; num_output: 8", UNLIKE.format(15, "ip_p", "ip_w", "ip", "(9, ?)", "(8, ?)")),
    "another kernel, the database missing": (WITHOUT_DATABASE, "pool1_p ; conv2_w conv2_b ; num_output: 7 kernel_size: 2", "pool1_p ; conv2_w conv2_b ; num_output: 7 kernel_size: 3", UNLIKE.format(12, "conv2_p", "conv2_w", "conv2", "(7, ?, 2, ...)", "(7, ?, 3, ...)")),
    "another group, the database missing": (WITHOUT_DATABASE, "conv2_p ; conv3_w conv3_b ;", "conv2_p ; conv3_w conv3_b ; group: 7", "14: warning[unlike-towers]: layer 'conv3_p': shares its weight with layer 'conv3', but their settings differ: one shape of the weight needs bottoms of different shapes"),
    "no bias in one tower": (SIAMESE, "conv2_p ; conv3_w conv3_b ;", "conv2_p ; conv3_w ; bias_term: false", "13: warning[partly-shared]: layer 'conv3_p': shares parameters with layer 'conv3', but has no bias, so the towers compute different functions"),
    "both towers read the first input": (SIAMESE, "conv1_p Convolution data_p", "conv1_p Convolution data", SAME_INPUT.format(9, "conv1_p", "data", "conv1", "data_p", "data_p")),
    "both towers read the second input": (SIAMESE, "conv1 Convolution data ", "conv1 Convolution data_p ", SAME_INPUT.format(2, "conv1", "data_p", "conv1_p", "data", "data")),
    "both towers read one input, the database missing": (WITHOUT_DATABASE, "conv1_p Convolution data_p", "conv1_p Convolution data", SAME_INPUT.format(10, "conv1_p", "data", "conv1", "data_p", "data_p")),
    "both towers read one input of a missing HDF5 file": (SIAMESE.replace(PAIR, "in HDF5Data > data data_p sim ; ; source: 'none' batch_size: 2\n"), "conv1_p Convolution data_p", "conv1_p Convolution data", SAME_INPUT.format(9, "conv1_p", "data", "conv1", "data_p", "data_p")),
    "both towers read one input of missing images": (SIAMESE.replace(PAIR, "in PairData > data data_p sim ; ; source: 'none' batch_size: 2\n"), "conv1_p Convolution data_p", "conv1_p Convolution data", SAME_INPUT.format(9, "conv1_p", "data", "conv1", "data_p", "data_p")),
    "both towers read one of two input layers": (SIAMESE.replace(PAIR, "l Input > data ; ; 2x3x12x13\nr Input > data_p ; ; 2x3x12x13\ns Input > sim ; ; 2\n"), "conv1_p Convolution data_p", "conv1_p Convolution data", SAME_INPUT.format(11, "conv1_p", "data", "conv1", "data_p", "data_p")),
    "both towers read one of three inputs": (SIAMESE.replace(PAIR, "in Input > data data_p other sim ; ; 2x3x12x13 2x3x12x13 2x3x12x13 2\n"), "conv1_p Convolution data_p", "conv1_p Convolution data", SAME_INPUT.format(9, "conv1_p", "data", "conv1", "data_p", "data_p")),
    "the shared part of a half-twin reads one tower": (PAIR + tower() + mixed(4, "_q", "", "_p") + LOSS, "conv3_p Convolution conv2_p", "conv3_p Convolution conv2", SAME_INPUT.format(13, "conv3_p", "conv2", "conv3", "conv2_p", "conv2_p")),
    "two of three towers read one input": (TRIPLET, "conv1_n Convolution data_n", "conv1_n Convolution data_p", SAME_INPUT.format(16, "conv1_n", "data_p", "conv1_p", "data_n", "data_n")),
    "a layer that reads the other tower": (SIAMESE, "conv2_p Convolution pool1_p", "conv2_p Convolution pool1", SAME_INPUT.format(11, "conv2_p", "pool1", "conv2", "pool1_p", "pool1_p")),
    "a last layer that reads the other tower": (SIAMESE, "feat_p InnerProduct ip_p", "feat_p InnerProduct ip", SAME_INPUT.format(15, "feat_p", "ip", "feat", "ip_p", "ip_p")),
    "a layer in place left out": (SIAMESE, "relu2_p ReLU conv2_p > conv2_p\n", "", LEFT_OUT.format(12, "conv3_p", "conv2_p", "relu2", "conv2", "which layer 'conv3' reads")),
    "a layer in place left out in the first tower": (SIAMESE, "relu2 ReLU conv2 > conv2\n", "", LEFT_OUT.format(5, "conv3", "conv2", "relu2_p", "conv2_p", "which layer 'conv3_p' reads")),
    "a layer in place left out in a triplet": (TRIPLET, "relu2_n ReLU conv2_n > conv2_n\n", "", LEFT_OUT.format(19, "conv3_n", "conv2_n", "relu2", "conv2", "which layer 'conv3' reads")),
    "a last layer in place left out": (SIAMESE, LOSS, f"r ReLU feat > feat\n{LOSS}", LEFT_OUT.format(17, "loss", "feat_p", "r", "feat", "the feature of another tower")),
    "a layer left out": (SIAMESE, "pool1_p Pooling conv1_p ; ; pool: MAX kernel_size: 2 stride: 2\n", "", "10: error[net]: layer 'conv2_p': unknown bottom blob 'pool1_p' (index 0); did you mean 'pool1'?"),
    "a last layer left out": (SIAMESE, "feat_p InnerProduct ip_p ; feat_w feat_b ; num_output: 5\n", "", "15: error[net]: layer 'loss': unknown bottom blob 'feat_p' (index 1); did you mean 'feat'?"),
    "a misspelt bottom": (SIAMESE, "ip_p InnerProduct conv3_p", "ip_p InnerProduct conv3_q", "14: error[net]: layer 'ip_p': unknown bottom blob 'conv3_q' (index 0); did you mean 'conv3_p'?"),
    "a misspelt bottom of the last layer": (SIAMESE, "feat_p InnerProduct ip_p", "feat_p InnerProduct ip_q", "15: error[net]: layer 'feat_p': unknown bottom blob 'ip_q' (index 0); did you mean 'ip_p'?"),
    "a misspelt type": (SIAMESE, "relu2_p ReLU", "relu2_p Relu", "12: error[unknown-layer]: layer 'relu2_p': unknown layer type 'Relu'; did you mean 'ReLU'?"),
    "one feature twice": (SIAMESE, "feat feat_p sim", "feat feat sim", BOTTOMS.format(16, "loss", "both features are 'feat', so all distances are 0; use one of each tower")),
    "features of different depth": (WIDE, "feat feat_p sim", "ip feat_p sim", BOTTOMS.format(16, "loss", "the features 'ip' and 'feat_p' are outputs of different layers of their towers; use the same layer of each")),
    "two features of one tower": (WIDE, "feat feat_p sim", "feat ip sim", BOTTOMS.format(16, "loss", "the feature 'feat' is computed from the other feature, 'ip'; use one of each tower")),
    "a feature as the label": (SIAMESE, "feat feat_p sim", "feat sim feat_p", "16: error[net]: layer 'loss': bottom 2 has shape (2, 5), expected one label per pair: (N) or (N, 1, 1, 1)"),
    "the difference of a feature and itself": (PAIR + TWIN + DIFFERENCE + DECISION.format("diff"), "diff Eltwise feat feat_p", "diff Eltwise feat feat", BOTTOMS.format(16, "diff", "both bottoms are 'feat', so their difference is always 0; use one of each tower")),
    "a label against itself": (PAIR + TWIN + "both Concat feat feat_p\ndecision InnerProduct both ; ; num_output: 1\nloss EuclideanLoss decision sim", "loss EuclideanLoss decision", "loss EuclideanLoss sim", BOTTOMS.format(18, "loss", "both bottoms are 'sim'; use a prediction and a label")),
    "towers without names and a pair loss": (PAIR + unnamed(TWIN) + LOSS, "", "", APART),
    "towers without names and a distance": (PAIR + unnamed(TWIN) + "d Distance feat feat_p\nloss EuclideanLoss d sim", "", "", APART),
    "towers without names and a difference": (PAIR + unnamed(TWIN) + DIFFERENCE + DECISION.format("diff"), "", "", APART),
}  # fmt: skip  # one fault per line


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_has_one_finding_at_its_line_with_the_right_hint(case: str) -> None:
    text, old, new, expected = FAULTS[case]
    assert not old or text.count(old) == 1
    findings = [
        str(finding).removeprefix("<text>:") for finding in check_net(net(text.replace(old, new) if old else text))
    ]
    assert findings == [expected]


def test_towers_without_names_that_read_one_input_have_both_findings() -> None:
    text = MISSING + unnamed(TWIN).replace("conv1_p Convolution data_p", "conv1_p Convolution data") + LOSS
    codes = [(finding.location.line, finding.code) for finding in check_net(net(text))]
    assert codes == [(10, "unshared-towers"), (10, "unread-input")]


@pytest.mark.parametrize(
    "source",
    [PAIR, MISSING, "in PairData > data data_p sim ; ; source: 'none' batch_size: 2\n"],
    ids=["Input", "Slice", "PairData"],
)
def test_an_input_that_is_not_read_is_reported_whatever_its_name(source: str) -> None:
    text = source + TWIN.replace("conv1_p Convolution data_p", "conv1_p Convolution data") + LOSS
    text = re.sub(r"\bdata\b", "left", text.replace("data_p", "right"))
    findings = [(finding.code, finding.text.rpartition("; ")[2]) for finding in check_net(net(text))]
    assert findings == [("unread-input", "should it read 'right'?")]
