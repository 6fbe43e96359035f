"""Write a graph as an ONNX model."""

from __future__ import annotations

from siamese_proto.export.onnx.model import OnnxModel, check_packages, make_onnx

__all__ = ["OnnxModel", "check_packages", "make_onnx"]
