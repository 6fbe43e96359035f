"""Layers and modules written by users in Python."""
