"""Labeled images and named pairs, whatever files they are in."""
