"""Passes: rewrite a graph so that it computes the same in less time."""
