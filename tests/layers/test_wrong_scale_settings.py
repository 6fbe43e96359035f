"""Invalid settings of element-wise functions, normalization and scales: the error names both values and the field."""

from __future__ import annotations

import pytest
from layer_harness import refused

X = (2, 6, 9, 10)
SCALE = 'type: "Scale" scale_param'
BIAS = 'type: "Bias" bias_param'

# text, bottom shapes, message, field
TABLE = [
    # Clip, Exp, Log, PReLU
    ('type: "Clip" clip_param { max: 6 }', [X], "min is missing: Clip needs both min and max", "clip_param"),
    ('type: "Clip" clip_param { min: 0 }', [X], "max is missing: Clip needs both min and max", "clip_param"),
    ('type: "Clip"', [X], "min is missing: Clip needs both min and max", "clip_param"),
    ('type: "Exp" exp_param { base: 0 }', [X], "base 0 must be greater than 0, or -1 for e", "exp_param.base"),
    ('type: "Exp" exp_param { base: -2 }', [X], "base -2 must be greater than 0, or -1 for e", "exp_param.base"),
    ('type: "Exp" exp_param { base: inf }', [X], "base inf must be greater than 0, or -1 for e", "exp_param.base"),
    ('type: "Log" log_param { base: -0.5 }', [X], "base -0.5 must be greater than 0, or -1 for e", "log_param.base"),
    (
        'type: "Log" log_param { base: 1 }',
        [X],
        "base 1 has no logarithm: use another base, or -1 for e",
        "log_param.base",
    ),
    (
        'type: "PReLU"',
        [(6,)],
        "a bottom of shape (6,) has no channels: PReLU takes at least 2 axes, (N, C, ..)",
        "bottom[0]",
    ),
    # Embed
    (
        'type: "Embed" embed_param { input_dim: 3 }',
        [(2,)],
        "num_output is missing; give a number",
        "embed_param.num_output",
    ),
    (
        'type: "Embed" embed_param { num_output: 3 input_dim: 0 }',
        [(2,)],
        "input_dim 0 must be at least 1",
        "embed_param.input_dim",
    ),
    # BatchNorm, LRN, MVN
    (
        'type: "BatchNorm"',
        [(6,)],
        "a bottom of shape (6,) has no channels: BatchNorm takes at least 2 axes, (N, C, ..)",
        "bottom[0]",
    ),
    (
        'type: "LRN" lrn_param { local_size: 4 }',
        [X],
        "local_size 4 must be odd, so that the window has a center",
        "lrn_param.local_size",
    ),
    (
        'type: "LRN" lrn_param { local_size: 0 norm_region: WITHIN_CHANNEL }',
        [X],
        "local_size 0 must be odd, so that the window has a center",
        "lrn_param.local_size",
    ),
    ('type: "LRN"', [(2, 6)], "a bottom of shape (2, 6) has 2 axes: LRN takes 4, (N, C, H, W)", "bottom[0]"),
    (
        'type: "MVN"',
        [(2, 3, 4, 5, 6)],
        "a bottom of shape (2, 3, 4, 5, 6) has 5 axes: MVN takes up to 4, (N, C, H, W)",
        "bottom[0]",
    ),
    # Scale, Bias
    (
        f"{SCALE} {{ num_axes: -2 }}",
        [X],
        "num_axes -2 must be at least 0, or -1 for all axes that follow",
        "scale_param.num_axes",
    ),
    (
        f"{SCALE} {{ axis: 2 num_axes: 3 }}",
        [X],
        "axis 2 and num_axes 3 exceed a bottom of shape (2, 6, 9, 10)",
        "scale_param.num_axes",
    ),
    (
        f"{SCALE} {{ axis: 4 num_axes: 0 }}",
        [X],
        "axis 4 does not exist in a bottom of shape (2, 6, 9, 10)",
        "scale_param.axis",
    ),
    (
        f"{SCALE} {{ axis: 1 }}",
        [X, (6, 10)],
        "bottom 1 of shape (6, 10) does not match bottom 0 of shape (2, 6, 9, 10) from axis 1 on",
        "bottom[1]",
    ),
    (
        f"{SCALE} {{ axis: -1 }}",
        [X, (10, 1)],
        "bottom 1 of shape (10, 1) does not match bottom 0 of shape (2, 6, 9, 10) from axis -1 on",
        "bottom[1]",
    ),
    (
        f"{SCALE} {{ axis: -5 }}",
        [X, (6,)],
        "axis -5 does not exist in a bottom of shape (2, 6, 9, 10)",
        "scale_param.axis",
    ),
    (
        f"{SCALE} {{ axis: 5 bias_term: true }}",
        [X, ()],
        "axis 5 does not exist in a bottom of shape (2, 6, 9, 10)",
        "scale_param.axis",
    ),
    (
        f"{BIAS} {{ num_axes: -3 }}",
        [X],
        "num_axes -3 must be at least 0, or -1 for all axes that follow",
        "bias_param.num_axes",
    ),
    (
        f"{BIAS} {{ axis: -2 num_axes: 3 }}",
        [X],
        "axis -2 and num_axes 3 exceed a bottom of shape (2, 6, 9, 10)",
        "bias_param.num_axes",
    ),
    (
        f"{BIAS} {{ axis: 4 }}",
        [X],
        "axis 4 does not exist in a bottom of shape (2, 6, 9, 10)",
        "bias_param.axis",
    ),
    (
        'type: "Bias"',
        [X, (2, 6)],
        "bottom 1 of shape (2, 6) does not match bottom 0 of shape (2, 6, 9, 10) from axis 1 on",
        "bottom[1]",
    ),
]


@pytest.mark.parametrize(("text", "bottoms", "problem", "field"), TABLE, ids=[row[0][6:] for row in TABLE])
def test_a_wrong_setting_of_scale_or_size_is_named(text, bottoms, problem, field):
    error = refused(text, bottoms, 1)
    assert error.message == problem
    assert error.field == field
