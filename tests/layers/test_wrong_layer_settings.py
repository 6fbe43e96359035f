"""Invalid settings of the other layers: a one-line error names both values and the field."""

from __future__ import annotations

import pytest
from layer_harness import refused

X = (2, 6, 9, 10)
RESHAPE = 'type: "Reshape" reshape_param'
LABELS_NEEDED = "bottom 0 of shape (2, 6, 9, 10) with the classes on axis 1 needs 180 labels, "

# text, bottom shapes, number of tops, message, field
TABLE = [
    # InnerProduct
    (
        'type: "InnerProduct" inner_product_param { axis: 1 }',
        [X],
        1,
        "num_output is missing; give a number",
        "inner_product_param.num_output",
    ),
    (
        'type: "InnerProduct" inner_product_param { num_output: 3 axis: -5 }',
        [X],
        1,
        "axis -5 does not exist in a bottom of shape (2, 6, 9, 10)",
        "inner_product_param.axis",
    ),
    # Input
    (
        'type: "Input" input_param { shape { dim: 2 } shape { dim: 3 } }',
        [],
        3,
        "2 shapes are set for 3 tops: set one shape, or one per top",
        "input_param.shape[1]",
    ),
    (
        'type: "Input" input_param { shape { dim: 2 dim: -3 } }',
        [],
        1,
        "shape (2, -3) has a negative dimension",
        "input_param.shape[0]",
    ),
    # Slice, Concat
    (
        'type: "Slice" slice_param { axis: 1 slice_dim: 2 }',
        [X],
        2,
        "both axis 1 and slice_dim 2 are set: they mean the same; keep axis only",
        "slice_param.slice_dim",
    ),
    (
        'type: "Slice" slice_param { slice_point: 1 slice_point: 2 }',
        [X],
        2,
        "slice_point is set 2 times for 2 tops: set it 1 times, or leave it out for equal parts",
        "slice_param.slice_point[0]",
    ),
    (
        'type: "Slice" slice_param { slice_point: 3 slice_point: 3 }',
        [X],
        3,
        "slice_point 3 must be greater than 3, where the previous slice begins",
        "slice_param.slice_point[1]",
    ),
    (
        'type: "Slice" slice_param { slice_point: 6 }',
        [X],
        2,
        "slice_point 6 is not inside axis 1, which has size 6",
        "slice_param.slice_point[0]",
    ),
    (
        'type: "Slice" slice_param { axis: 2 }',
        [X],
        2,
        "2 tops do not divide axis 2 of size 9 into equal parts: set slice_point",
        "slice_param.axis",
    ),
    (
        'type: "Slice" slice_param { slice_dim: 4 }',
        [X],
        2,
        "axis 4 does not exist in a bottom of shape (2, 6, 9, 10)",
        "slice_param.slice_dim",
    ),
    (
        'type: "Concat" concat_param { axis: 1 concat_dim: 0 }',
        [X, X],
        1,
        "both axis 1 and concat_dim 0 are set: they mean the same; keep axis only",
        "concat_param.concat_dim",
    ),
    (
        'type: "Concat"',
        [X, (2, 5, 9, 10), (2, 6, 9, 11)],
        1,
        "bottom 2 of shape (2, 6, 9, 11) cannot be joined to bottom 0 of shape (2, 6, 9, 10): only axis 1 may differ",
        "bottom[2]",
    ),
    (
        'type: "Concat"',
        [X, (2, 6)],
        1,
        "bottom 1 of shape (2, 6) cannot be joined to bottom 0 of shape (2, 6, 9, 10): only axis 1 may differ",
        "bottom[1]",
    ),
    # Flatten, Reshape, layers that cannot work in place
    (
        'type: "Flatten" flatten_param { axis: 3 end_axis: 1 }',
        [X],
        1,
        "end_axis 1 is before axis 3 in a bottom of shape (2, 6, 9, 10)",
        "flatten_param.end_axis",
    ),
    (
        'type: "AbsVal" bottom: "x" top: "x"',
        [X],
        1,
        "AbsVal cannot work in place, but bottom and top are both 'x': rename the top",
        "top[0]",
    ),
    (
        'type: "Flatten" bottom: "x" top: "x"',
        [X],
        1,
        "Flatten cannot work in place, but bottom and top are both 'x': rename the top",
        "top[0]",
    ),
    (
        'type: "Reshape" bottom: "x" top: "x"',
        [X],
        1,
        "Reshape cannot work in place, but bottom and top are both 'x': rename the top",
        "top[0]",
    ),
    (
        'type: "Split" bottom: "x" top: "x" top: "y"',
        [X],
        2,
        "Split cannot work in place, but bottom and top are both 'x': rename the top",
        "top[0]",
    ),
    (
        f"{RESHAPE} {{ shape {{ dim: -1 dim: 2 dim: -1 }} }}",
        [X],
        1,
        "shape (-1, 2, -1) holds -1 2 times: only one dimension can be inferred",
        "reshape_param.shape",
    ),
    (
        f"{RESHAPE} {{ shape {{ dim: -2 }} }}",
        [X],
        1,
        "shape (-2,) holds -2: dimensions are positive, 0 (copy) or -1 (infer)",
        "reshape_param.shape",
    ),
    (
        f"{RESHAPE} {{ shape {{ dim: 2 dim: 7 dim: -1 }} }}",
        [X],
        1,
        "a bottom of shape (2, 6, 9, 10) with 1080 elements does not fill (2, 7, ?)",
        "reshape_param.shape",
    ),
    (
        f"{RESHAPE} {{ shape {{ dim: 2 dim: 50 }} }}",
        [X],
        1,
        "a bottom of shape (2, 6, 9, 10) with 1080 elements does not fill (2, 50)",
        "reshape_param.shape",
    ),
    (
        f"{RESHAPE} {{ shape {{ dim: 6 dim: 90 dim: 2 dim: 1 dim: 0 }} }}",
        [X],
        1,
        "shape (6, 90, 2, 1, 0) copies axis 4, which a bottom of shape (2, 6, 9, 10) does not have",
        "reshape_param.shape",
    ),
    (
        f"{RESHAPE} {{ axis: 2 shape {{ dim: 9 dim: 10 dim: 0 }} }}",
        [X],
        1,
        "shape (9, 10, 0) copies axis 4, which a bottom of shape (2, 6, 9, 10) does not have",
        "reshape_param.shape",
    ),
    (
        f"{RESHAPE} {{ axis: 5 shape {{ dim: 1 }} }}",
        [X],
        1,
        "axis 5 does not exist in a bottom of shape (2, 6, 9, 10)",
        "reshape_param.axis",
    ),
    (
        f"{RESHAPE} {{ axis: -6 shape {{ dim: 1 }} }}",
        [X],
        1,
        "axis -6 does not exist in a bottom of shape (2, 6, 9, 10)",
        "reshape_param.axis",
    ),
    (
        f"{RESHAPE} {{ axis: 2 num_axes: 3 shape {{ dim: -1 }} }}",
        [X],
        1,
        "axis 2 and num_axes 3 exceed a bottom of shape (2, 6, 9, 10)",
        "reshape_param.num_axes",
    ),
    (
        f"{RESHAPE} {{ num_axes: -2 shape {{ dim: -1 }} }}",
        [X],
        1,
        "num_axes -2 must be at least 0, or -1 for all",
        "reshape_param.num_axes",
    ),
    # Eltwise, Dropout, Softmax
    (
        'type: "Eltwise"',
        [X, (2, 6, 9, 11)],
        1,
        "bottom 1 has shape (2, 6, 9, 11), but bottom 0 has (2, 6, 9, 10): they must be the same",
        "bottom[1]",
    ),
    (
        'type: "Eltwise" eltwise_param { coeff: 1 coeff: -1 coeff: 2 }',
        [X, X],
        1,
        "coeff is set 3 times for 2 bottoms: set it once per bottom",
        "eltwise_param.coeff[0]",
    ),
    (
        'type: "Eltwise" eltwise_param { operation: PROD coeff: 1 coeff: -1 }',
        [X, X],
        1,
        "coeff is set for operation PROD: only SUM supports coefficients",
        "eltwise_param.coeff[0]",
    ),
    (
        'type: "Dropout" dropout_param { dropout_ratio: 1 }',
        [X],
        1,
        "dropout_ratio 1 must be at least 0 and less than 1",
        "dropout_param.dropout_ratio",
    ),
    (
        'type: "Softmax" softmax_param { axis: 4 }',
        [X],
        1,
        "axis 4 does not exist in a bottom of shape (2, 6, 9, 10)",
        "softmax_param.axis",
    ),
    # Losses
    (
        'type: "SoftmaxWithLoss"',
        [X, (3, 9, 10)],
        1,
        "bottom 0 has shape (2, 6, 9, 10) and bottom 1 has shape (3, 9, 10): "
        "their first dimensions, the batch, must be equal",
        "bottom[1]",
    ),
    (
        'type: "SoftmaxWithLoss"',
        [X, (2, 9)],
        1,
        LABELS_NEEDED + "but bottom 1 of shape (2, 9) holds 18",
        "bottom[1]",
    ),
    (
        'type: "SoftmaxWithLoss" softmax_param { axis: 7 }',
        [X, (2, 9, 10)],
        1,
        "axis 7 does not exist in a bottom of shape (2, 6, 9, 10)",
        "softmax_param.axis",
    ),
    (
        'type: "EuclideanLoss"',
        [(4, 3), (4, 5)],
        1,
        "bottom 0 of shape (4, 3) holds 12 values and bottom 1 of shape (4, 5) 20: they must be equal",
        "bottom[1]",
    ),
    (
        'type: "EuclideanLoss"',
        [(), ()],
        1,
        "bottom 0 has shape () and bottom 1 has shape (): their first dimensions, the batch, must be equal",
        "bottom[1]",
    ),
    (
        'type: "SigmoidCrossEntropyLoss"',
        [(4, 3), (4,)],
        1,
        "bottom 0 of shape (4, 3) holds 12 values and bottom 1 of shape (4,) 4: they must be equal",
        "bottom[1]",
    ),
    (
        'type: "ContrastiveLoss"',
        [(4, 3), (5, 3), (4,)],
        1,
        "bottom 0 has shape (4, 3) and bottom 1 has shape (5, 3): their first dimensions, the batch, must be equal",
        "bottom[1]",
    ),
    (
        'type: "ContrastiveLoss"',
        [(4, 3), (4, 3), (6,)],
        1,
        "bottom 0 has shape (4, 3) and bottom 2 has shape (6,): their first dimensions, the batch, must be equal",
        "bottom[2]",
    ),
    (
        'type: "ContrastiveLoss"',
        [(4, 3), (4, 5), (4,)],
        1,
        "bottom 0 of shape (4, 3) has 3 features and bottom 1 of shape (4, 5) has 5: they must be equal",
        "bottom[1]",
    ),
    (
        'type: "ContrastiveLoss"',
        [(4, 3, 2, 1), (4, 3, 2, 1), (4,)],
        1,
        "bottom 0 has shape (4, 3, 2, 1), expected (N, C) or (N, C, 1, 1); flatten it first",
        "bottom[0]",
    ),
    (
        'type: "ContrastiveLoss"',
        [(4, 3), (4, 3), (4, 2)],
        1,
        "bottom 2 has shape (4, 2), expected one label per pair: (N) or (N, 1, 1, 1)",
        "bottom[2]",
    ),
    # Accuracy
    (
        'type: "Accuracy" accuracy_param { top_k: 7 }',
        [(2, 6), (2,)],
        1,
        "top_k 7 is more than the 6 classes of bottom shape (2, 6)",
        "accuracy_param.top_k",
    ),
    ('type: "Accuracy"', [X, (2,)], 1, LABELS_NEEDED + "but bottom 1 of shape (2,) holds 2", "bottom[1]"),
]


@pytest.mark.parametrize(("text", "bottoms", "tops", "problem", "field"), TABLE, ids=[row[0][6:] for row in TABLE])
def test_a_wrong_setting_is_named(text, bottoms, tops, problem, field):
    error = refused(text, bottoms, tops)
    assert error.message == problem
    assert error.field == field
