"""Nets as ONNX, run with onnxruntime and compared with the original nets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

import siamese_proto as sp
from siamese_proto.export.onnx import OnnxModel, make_onnx


def run(content: bytes, values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the outputs of a model by name."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    inputs = {value.name: values[value.name].numpy() for value in session.get_inputs()}
    return dict(zip(names, session.run(None, inputs), strict=True))


def compare(net: sp.Net, values: Mapping[str, Tensor]) -> OnnxModel:
    """Check that the model of a net computes the same as the net for these values; return the model."""
    model = make_onnx(net.graph, net.tensors)
    onnx.checker.check_model(onnx.load_from_string(model.content), full_check=True)
    with torch.no_grad():
        expected = net(**values)
    results = run(model.content, values)
    assert tuple(results) == model.outputs
    assert results.keys() == expected.keys() - values.keys()
    for name, output in results.items():
        reference = expected[name].numpy()
        scale = float(np.abs(reference[np.isfinite(reference)]).max(initial=1.0))
        np.testing.assert_allclose(output, reference, rtol=2e-5, atol=2e-6 * scale, err_msg=name)
    return model
