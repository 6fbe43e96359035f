"""Caffe-style network files, compiled to PyTorch."""
