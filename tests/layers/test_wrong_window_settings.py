"""Invalid settings of layers with windows: a one-line error names both values and the field."""

from __future__ import annotations

import pytest
from layer_harness import refused

X = (2, 6, 9, 10)
CONVOLUTION = 'type: "Convolution" convolution_param'
DECONVOLUTION = 'type: "Deconvolution" convolution_param'
IM2COL = 'type: "Im2col" convolution_param'
SPP = 'type: "SPP" spp_param'
POOLING = 'type: "Pooling" pooling_param'

# text, bottom shapes, number of tops, message, field
TABLE = [
    # Convolution
    (
        f"{CONVOLUTION} {{ kernel_size: 3 }}",
        [X],
        1,
        "num_output is missing; give a number",
        "convolution_param.num_output",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 }}",
        [X],
        1,
        "kernel_size is missing: set it, or kernel_h and kernel_w",
        "convolution_param",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 kernel_h: 5 kernel_w: 7 }}",
        [X],
        1,
        "both kernel_size 3 and kernel_h 5 are set: use kernel_size, or kernel_h and kernel_w",
        "convolution_param.kernel_h",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_h: 5 }}",
        [X],
        1,
        "kernel_h 5 is set without kernel_w: set both, or kernel_size",
        "convolution_param.kernel_h",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 stride: 2 stride_w: 1 }}",
        [X],
        1,
        "both stride 2 and stride_w 1 are set: use stride, or stride_h and stride_w",
        "convolution_param.stride_w",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 pad: 2 pad_h: 1 }}",
        [X],
        1,
        "both pad 2 and pad_h 1 are set: use pad, or pad_h and pad_w",
        "convolution_param.pad_h",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 0 }}",
        [X],
        1,
        "kernel_size 0 must be at least 1",
        "convolution_param.kernel_size[0]",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 stride: 1 stride: 0 }}",
        [X],
        1,
        "stride 0 must be at least 1",
        "convolution_param.stride[1]",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 dilation: 0 }}",
        [X],
        1,
        "dilation 0 must be at least 1",
        "convolution_param.dilation[0]",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 group: 0 }}",
        [X],
        1,
        "group 0 must be at least 1",
        "convolution_param.group",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 group: 3 }}",
        [X],
        1,
        "group 3 does not divide num_output 4",
        "convolution_param.group",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 group: 4 }}",
        [X],
        1,
        "group 4 does not divide the 6 channels of bottom shape (2, 6, 9, 10)",
        "convolution_param.group",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 12 pad: 1 }}",
        [X],
        1,
        "kernel size 12 is larger than the padded bottom, 9 + 2 x 1 = 11",
        "convolution_param.kernel_size[0]",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_h: 1 kernel_w: 6 dilation: 2 }}",
        [X],
        1,
        "kernel size 6 (dilation 2 makes it 11) is larger than the padded bottom, 10 + 2 x 0 = 10",
        "convolution_param.kernel_w",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 kernel_size: 3 kernel_size: 3 }}",
        [X],
        1,
        "kernel_size is set 3 times for 2 spatial dimensions of a bottom of shape (2, 6, 9, 10): "
        "set it once, or once per dimension",
        "convolution_param.kernel_size[0]",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_h: 3 kernel_w: 3 }}",
        [(2, 6, 9)],
        1,
        "settings for height and width need 2 spatial dimensions, but a bottom of shape (2, 6, 9) has 1: "
        "set kernel_size, stride and pad once per dimension",
        "convolution_param",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 }}",
        [(2, 6, 5, 5, 5, 5)],
        1,
        "a bottom of shape (2, 6, 5, 5, 5, 5) has 4 dimensions after the channels (axis 1): "
        "Convolution supports up to 3",
        "bottom[0]",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 axis: 4 }}",
        [X],
        1,
        "axis 4 does not exist in a bottom of shape (2, 6, 9, 10)",
        "convolution_param.axis",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_size: 3 }}",
        [X, (2, 6, 9, 11)],
        2,
        "bottom 1 has shape (2, 6, 9, 11), but bottom 0 has (2, 6, 9, 10): they must be the same",
        "bottom[1]",
    ),
    (
        f"{CONVOLUTION} {{ num_output: 4 kernel_h: 3 kernel_w: 3 }}",
        [(2, 6)],
        1,
        "settings for height and width need 2 spatial dimensions, but a bottom of shape (2, 6) has 0: "
        "set kernel_size, stride and pad once per dimension",
        "convolution_param",
    ),
    # Deconvolution, Im2col
    (
        f"{DECONVOLUTION} {{ kernel_size: 3 }}",
        [X],
        1,
        "num_output is missing; give a number",
        "convolution_param.num_output",
    ),
    (
        f"{DECONVOLUTION} {{ num_output: 4 stride: 2 }}",
        [X],
        1,
        "kernel_size is missing: set it, or kernel_h and kernel_w",
        "convolution_param",
    ),
    (
        f"{DECONVOLUTION} {{ num_output: 4 kernel_size: 3 group: 4 }}",
        [X],
        1,
        "group 4 does not divide the 6 channels of bottom shape (2, 6, 9, 10)",
        "convolution_param.group",
    ),
    (
        f"{DECONVOLUTION} {{ num_output: 4 kernel_size: 3 pad: 6 }}",
        [X],
        1,
        "pad 6 on both sides removes all 11 values that kernel size 3 and stride 1 make from a bottom of size 9",
        "convolution_param.pad[0]",
    ),
    (
        f"{DECONVOLUTION} {{ num_output: 4 kernel_h: 9 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 0 pad_w: 11 }}",
        [X],
        1,
        "pad 11 on both sides removes all 21 values that kernel size 3 and stride 2 make from a bottom of size 10",
        "convolution_param.pad_w",
    ),
    (
        f"{DECONVOLUTION} {{ num_output: 4 kernel_size: 3 }}",
        [(2, 6, 5, 5, 5, 5)],
        1,
        "a bottom of shape (2, 6, 5, 5, 5, 5) has 4 dimensions after the channels (axis 1): "
        "Deconvolution supports up to 3",
        "bottom[0]",
    ),
    (
        f"{DECONVOLUTION} {{ num_output: 4 kernel_size: 3 }}",
        [X, (3, 6, 9, 10)],
        2,
        "bottom 1 has shape (3, 6, 9, 10), but bottom 0 has (2, 6, 9, 10): they must be the same",
        "bottom[1]",
    ),
    (
        f"{IM2COL} {{ kernel_size: 3 }}",
        [(2, 6)],
        1,
        "a bottom of shape (2, 6) has no dimensions after the channels (axis 1) for windows to slide over",
        "bottom[0]",
    ),
    (
        f"{IM2COL} {{ pad: 1 }}",
        [X],
        1,
        "kernel_size is missing: set it, or kernel_h and kernel_w",
        "convolution_param",
    ),
    (
        f"{IM2COL} {{ kernel_size: 4 dilation: 3 }}",
        [X],
        1,
        "kernel size 4 (dilation 3 makes it 10) is larger than the padded bottom, 9 + 2 x 0 = 9",
        "convolution_param.kernel_size[0]",
    ),
    (
        f"{IM2COL} {{ kernel_size: 3 axis: -5 }}",
        [X],
        1,
        "axis -5 does not exist in a bottom of shape (2, 6, 9, 10)",
        "convolution_param.axis",
    ),
    # SPP
    (f"{SPP} {{ pool: AVE }}", [X], 1, "pyramid_height is missing; give a number", "spp_param.pyramid_height"),
    (
        f"{SPP} {{ pyramid_height: 2 }}",
        [(2, 6, 9)],
        1,
        "a bottom of shape (2, 6, 9) has 3 axes: SPP takes 4, (N, C, H, W)",
        "bottom[0]",
    ),
    (
        f"{SPP} {{ pyramid_height: 4 }}",
        [X],
        1,
        "a side of 9 is too short for the 8 bins of level 4: windows of 2 need a pad of 4, "
        "which must be less than the window; lower pyramid_height 4",
        "spp_param.pyramid_height",
    ),
    (
        f"{SPP} {{ pyramid_height: 2 pool: STOCHASTIC }}",
        [X],
        1,
        "pool STOCHASTIC requires pad 0, but a side of 9 in 2 bins needs a pad of 1",
        "spp_param.pool",
    ),
    # Pooling
    (
        f"{POOLING} {{ pool: MAX }}",
        [X],
        1,
        "kernel_size is missing: set it, or kernel_h and kernel_w, or global_pooling",
        "pooling_param",
    ),
    (
        f"{POOLING} {{ kernel_size: 2 kernel_w: 3 }}",
        [X],
        1,
        "both kernel_size 2 and kernel_w 3 are set: use kernel_size, or kernel_h and kernel_w",
        "pooling_param.kernel_w",
    ),
    (
        f"{POOLING} {{ kernel_w: 3 }}",
        [X],
        1,
        "kernel_w 3 is set without kernel_h: set both, or kernel_size",
        "pooling_param.kernel_w",
    ),
    (f"{POOLING} {{ kernel_size: 0 }}", [X], 1, "kernel_size 0 must be at least 1", "pooling_param.kernel_size"),
    (f"{POOLING} {{ kernel_size: 2 stride: 0 }}", [X], 1, "stride 0 must be at least 1", "pooling_param.stride"),
    (
        f"{POOLING} {{ kernel_size: 2 stride_h: 2 }}",
        [X],
        1,
        "stride_h 2 is set without stride_w: set both, or stride",
        "pooling_param.stride_h",
    ),
    (
        f"{POOLING} {{ kernel_size: 4 pad: 1 pad_h: 2 pad_w: 3 }}",
        [X],
        1,
        "both pad 1 and pad_h 2 are set: use pad, or pad_h and pad_w",
        "pooling_param.pad_h",
    ),
    (
        f"{POOLING} {{ kernel_size: 2 pad: 2 }}",
        [X],
        1,
        "pad 2 must be less than the kernel size 2",
        "pooling_param.pad",
    ),
    (
        f"{POOLING} {{ kernel_h: 3 kernel_w: 2 pad_h: 2 pad_w: 2 }}",
        [X],
        1,
        "pad_w 2 must be less than the kernel size 2",
        "pooling_param.pad_w",
    ),
    (
        f"{POOLING} {{ global_pooling: true kernel_size: 2 }}",
        [X],
        1,
        "both global_pooling and kernel_size 2 are set: the window of global pooling is the whole image",
        "pooling_param.kernel_size",
    ),
    (
        f"{POOLING} {{ global_pooling: true stride: 2 }}",
        [X],
        1,
        "global_pooling requires pad 0 and stride 1, got pad (0, 0) and stride (2, 2)",
        "pooling_param.global_pooling",
    ),
    (
        f"{POOLING} {{ pool: STOCHASTIC kernel_size: 3 pad: 1 }}",
        [X],
        1,
        "pool STOCHASTIC requires pad 0, got (1, 1)",
        "pooling_param.pad",
    ),
    (
        f"{POOLING} {{ pool: AVE kernel_size: 3 }}",
        [X],
        2,
        "pool AVE has one top, got 2: only MAX has a second top",
        "top[1]",
    ),
    (
        f"{POOLING} {{ kernel_size: 13 }}",
        [X],
        1,
        "kernel size 13 is larger than the padded bottom, 9 + 2 x 0 = 9",
        "pooling_param.kernel_size",
    ),
    (
        f"{POOLING} {{ kernel_size: 3 }}",
        [(2, 540)],
        1,
        "a bottom of shape (2, 540) has 2 axes: Pooling takes 4, (N, C, H, W)",
        "bottom[0]",
    ),
]


@pytest.mark.parametrize(("text", "bottoms", "tops", "problem", "field"), TABLE, ids=[row[0][6:] for row in TABLE])
def test_a_wrong_setting_of_windows_is_named(text, bottoms, tops, problem, field):
    error = refused(text, bottoms, tops)
    assert error.message == problem
    assert error.field == field
