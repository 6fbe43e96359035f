"""Weights files, and copying from them into a net by layer name."""
