"""Evaluation and use of trained twins: distances, scores, features, search and plots."""
