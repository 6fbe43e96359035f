"""Modules and functions that are carried along in PyTorch source, where torch has no equal of what Caffe does.

Needs torch. Nothing here is imported when a net runs: the text of what a net uses is copied into its source, with all
that it refers to in this package.
"""
