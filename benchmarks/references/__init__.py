"""The networks of prototxt/ as plain hand-written PyTorch, the reference for the declarations.

Each is a module with `forward(batch) -> loss`, for the batch of the net's data layer; `features(images, side)`
and `apart(features, features) -> (N,)`, small for two images of one class; and `optimizer()`.
"""
