"""Write a graph as an ONNX model."""

from siamese_proto.export.onnx.model import OnnxModel, check_packages, make_onnx

__all__ = ["OnnxModel", "check_packages", "make_onnx"]
