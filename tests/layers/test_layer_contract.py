"""What every layer promises: shapes as predicted, numbers of the type given, rows that do not meet, true gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_harness import make, run, values

from siamese_proto.layers.base import registered

# type: (settings with {a}, {b}, {c} for drawn numbers, shapes of the bottoms or "any", tops). Sizes differ everywhere.
IMAGE = (2, 6, 9, 10)
SETTINGS = {
    "Slice": [
        ("slice_param {{ axis: {a} }}", [(4, 4, 4, 4)], 2),
        ("slice_param {{ axis: -{b} slice_point: 1 slice_point: {c} }}", [(5, 6, 7, 8)], 3),
        ("slice_param {{ axis: 0 slice_point: {b} }}", [(3, 5, 7)], 2),
        ("slice_param {{ slice_dim: {a} }}", [(3, 5, 7, 2)], 1),
    ],
    "Concat": [
        ("concat_param {{ axis: 1 }}", [(2, 3, 5), (2, 4, 5), (2, 6, 5)], 1),
        ("concat_param {{ axis: -1 }}", [(2, 3, 5), (2, 3, 7)], 1),
        ("concat_param {{ axis: 0 }}", [(3, 5, 7), (3, 5, 7)], 1),
        ("concat_param {{ concat_dim: 0 }}", [(2, 3, 5), (4, 3, 5)], 1),
        ("", [(2, 3, 5)], 1),
    ],
    "Split": [("", [IMAGE], 3)],
    "Silence": [("", [IMAGE, (3,)], 0)],
    "Flatten": [
        ("flatten_param {{ axis: {a} end_axis: -1 }}", [IMAGE], 1),
        ("flatten_param {{ axis: -{b} end_axis: 3 }}", [IMAGE], 1),
        ("flatten_param {{ axis: {b} end_axis: {a} }}", [(2, 3, 5, 7, 4)], 1),
    ],
    "Reshape": [
        ("reshape_param {{ shape {{ dim: 0 dim: -1 dim: {b} }} }}", [(2, 6, 12, 7)], 1),
        ("reshape_param {{ axis: {a} num_axes: 1 shape {{ dim: {b} dim: -1 }} }}", [(6, 12, 18, 24)], 1),
        ("reshape_param {{ axis: -1 num_axes: 0 shape {{ dim: 1 dim: 1 }} }}", [(2, 6)], 1),
        ("reshape_param {{ axis: 2 num_axes: 0 shape {{ dim: 1 }} }}", [(2, 6, 5)], 1),
        ("reshape_param {{ shape {{ dim: 540 dim: 2 }} }}", [IMAGE], 1),
    ],
    "Convolution": [
        (
            "convolution_param {{ num_output: 4 kernel_size: {b} stride: {b} pad: {a} dilation: {b} group: 2 }}",
            [IMAGE, IMAGE],
            2,
        ),
        (
            "convolution_param {{ num_output: 3 kernel_h: {b} kernel_w: 4 stride_h: 1 stride_w: {b} pad_w: {a} }}",
            [IMAGE],
            1,
        ),
        ("convolution_param {{ num_output: 3 kernel_size: {b} bias_term: false }}", [(2, 5, 11)], 1),
        ("convolution_param {{ num_output: 3 kernel_size: {b} kernel_size: 1 kernel_size: 3 }}", [(2, 5, 4, 6, 7)], 1),
        ("convolution_param {{ num_output: 3 kernel_size: {b} axis: 2 }}", [(2, 3, 5, 6, 7)], 1),
        ("convolution_param {{ num_output: 3 kernel_size: {b} axis: -3 }}", [(5, 6, 7)], 1),
    ],
    "Pooling": [
        ("pooling_param {{ pool: MAX kernel_size: 3 stride: {b} pad: {a} }}", [IMAGE], 2),
        ("pooling_param {{ pool: AVE kernel_size: 3 stride: {c} pad: {a} }}", [IMAGE], 1),
        ("pooling_param {{ pool: STOCHASTIC kernel_size: {c} stride: {b} }}", [IMAGE], 1),
        ("pooling_param {{ pool: MAX global_pooling: true }}", [IMAGE], 1),
    ],
    "InnerProduct": [
        ("inner_product_param {{ num_output: 7 axis: 0 }}", [(3, 5)], 1),
        ("inner_product_param {{ num_output: 7 axis: {a} }}", [IMAGE], 1),
        ("inner_product_param {{ num_output: 7 axis: -{b} transpose: true bias_term: false }}", [IMAGE], 1),
    ],
    "ReLU": [("", [IMAGE], 1), ("relu_param {{ negative_slope: 0.25 }}", [IMAGE], 1)],
    "Sigmoid": [("", [IMAGE], 1)],
    "TanH": [("", [IMAGE], 1)],
    "AbsVal": [("", [IMAGE], 1)],
    "Power": [
        ("power_param {{ power: {a} scale: {b} shift: -0.5 }}", [IMAGE], 1),
        ("power_param {{ power: 2 scale: 0 shift: 3 }}", [IMAGE], 1),
    ],
    "Dropout": [("dropout_param {{ dropout_ratio: 0.3 }}", [IMAGE], 1)],
    "Eltwise": [
        ("eltwise_param {{ operation: SUM coeff: {a} coeff: -1.5 coeff: 1 }}", [IMAGE] * 3, 1),
        ("eltwise_param {{ operation: PROD }}", [IMAGE] * 3, 1),
        ("eltwise_param {{ operation: PROD stable_prod_grad: false }}", [IMAGE] * 2, 1),
        ("eltwise_param {{ operation: MAX }}", [IMAGE] * 3, 1),
    ],
    "Softmax": [
        ("softmax_param {{ axis: 0 }}", [IMAGE], 1),
        ("softmax_param {{ axis: {a} }}", [IMAGE], 1),
        ("softmax_param {{ axis: -{b} }}", [IMAGE], 1),
    ],
    "SoftmaxWithLoss": [
        ("softmax_param {{ axis: {b} }}", [(2, 4, 4), (2, 4)], 2),
        ("loss_param {{ ignore_label: {a} normalization: FULL }}", [(3, 4), (3, 1)], 1),
    ],
    "ContrastiveLoss": [
        ("contrastive_loss_param {{ margin: {b} }}", [(4, 3), (4, 3), (4,)], 1),
        ("contrastive_loss_param {{ legacy_version: true }}", [(4, 3, 1, 1), (4, 3), (4, 1, 1, 1)], 1),
    ],
    "EuclideanLoss": [("", [(4, 3, 2), (4, 6)], 1)],
    "SigmoidCrossEntropyLoss": [("loss_param {{ ignore_label: {a} normalization: VALID }}", [(4, 3, 2), (4, 6)], 1)],
    "Accuracy": [("accuracy_param {{ axis: {b} top_k: {a} }}", [(2, 4, 4), (2, 4)], 2)],
}
CASES = [(kind, *case) for kind, cases in SETTINGS.items() for case in cases]
NUMBERS = {"a": st.integers(1, 2), "b": st.integers(1, 2), "c": st.integers(2, 3)}


def layer_and_bottoms(case, numbers, phase="TEST", dtype=torch.float64):
    kind, text, shapes, tops = case
    layer = make(f'type: "{kind}" {text.format(**numbers)}', len(shapes), tops, phase)
    bottoms = [values(shape, seed, dtype) for seed, shape in enumerate(shapes)]
    for index in layer.labels:
        bottoms[index] = (bottoms[index].abs() * 4) % 3 // 1
    params = [values(shape, 9 + index, dtype) for index, shape in enumerate(layer.param_shapes(shapes))]
    return layer, bottoms, params


def test_every_layer_that_computes_is_tried():
    computing = {
        name for name, kind in registered().items() if kind.bottoms.least and kind.__module__.startswith("siamese")
    }
    assert computing <= set(SETTINGS), "a new layer type needs settings here"


@pytest.mark.parametrize("case", CASES, ids=[f"{kind}-{text}" for kind, text, *_ in CASES])
@settings(max_examples=8, deadline=None)
@given(
    numbers=st.fixed_dictionaries(NUMBERS),
    phase=st.sampled_from(["TRAIN", "TEST"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_tops_have_the_shapes_and_type_that_were_promised(case, numbers, phase, dtype):
    layer, bottoms, params = layer_and_bottoms(case, numbers, phase, getattr(torch, dtype))
    shapes = [tuple(bottom.shape) for bottom in bottoms]
    before = [bottom.clone() for bottom in (*bottoms, *params)]
    tops = run(layer, *bottoms, params=params)
    assert [tuple(top.shape) for top in tops] == [tuple(shape) for shape in layer.top_shapes(shapes)]
    assert len(layer.param_shapes(shapes)) == len(layer.params())
    assert {top.dtype for top in tops} <= {getattr(torch, dtype)}
    assert all(torch.equal(old, new) for old, new in zip(before, (*bottoms, *params), strict=True)), (
        "a bottom was changed"
    )
    assert layer.multiply_adds(shapes, layer.top_shapes(shapes)) >= 0
    assert "\n" not in layer.describe()


@pytest.mark.parametrize("case", CASES, ids=[f"{kind}-{text}" for kind, text, *_ in CASES])
@settings(max_examples=8, deadline=None)
@given(numbers=st.fixed_dictionaries(NUMBERS), phase=st.sampled_from(["TRAIN", "TEST"]))
def test_rows_said_to_be_independent_can_be_split_and_joined(case, numbers, phase):
    layer, bottoms, params = layer_and_bottoms(case, numbers, phase)
    if not layer.rows_independent() or len({len(bottom) for bottom in bottoms}) > 1:
        return
    together = run(layer, *bottoms, params=params)
    first, rest = (
        run(layer, *(bottom[part] for bottom in bottoms), params=params) for part in (slice(1), slice(1, None))
    )
    for joined, one, others in zip(together, first, rest, strict=True):
        torch.testing.assert_close(joined, torch.cat([one, others]), rtol=1e-12, atol=1e-12)


# Those whose gradient is the derivative; ContrastiveLoss and the quotient gradient of PROD have tests of their own.
TRUE_GRADIENTS = [
    case
    for case in CASES
    if registered()[case[0]].differentiable
    and case[0] not in ("Silence", "ContrastiveLoss")
    and "stable_prod_grad" not in case[1]
]


@pytest.mark.parametrize("case", TRUE_GRADIENTS, ids=[f"{kind}-{text}" for kind, text, *_ in TRUE_GRADIENTS])
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_gradients_are_the_derivatives(case, phase):
    layer, bottoms, params = layer_and_bottoms(case, {"a": 1, "b": 2, "c": 2}, phase)
    # Moved away from ties and kinks, where there is no derivative.
    generator = torch.Generator().manual_seed(3)
    inputs = [
        tensor if index in layer.labels else tensor + 0.1 * torch.rand(tensor.shape, generator=generator) + 0.01
        for index, tensor in enumerate(bottoms)
    ]
    inputs = [tensor if index in layer.labels else tensor.requires_grad_() for index, tensor in enumerate(inputs)]
    params = [param.requires_grad_() for param in params]

    def tops(*tensors):
        found = run(layer, *tensors[: len(inputs)], params=tensors[len(inputs) :])
        return [top for top in found if top.requires_grad]

    assert torch.autograd.gradcheck(tops, (*inputs, *params), eps=1e-6, atol=1e-5, fast_mode=True)
