"""A graph as files: drawings, PyTorch source, ONNX, deploy nets and tables."""
