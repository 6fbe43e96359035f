"""The networks of prototxt/ written by hand in PyTorch, as plainly as one would: what the declarations are held to.

Each is a module with `forward(batch) -> loss`, for the batch that the net's data layer gives; `features(images, side)`
and `apart(features, features) -> (N,)`, small where two images are of one class; and `optimizer()`.
"""
