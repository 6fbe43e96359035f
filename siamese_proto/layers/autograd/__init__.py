"""Backward rules of Caffe that are not the derivative of the forward pass.

Needs torch: layers import it when they compute.
"""
