"""Plots of evaluation results, features and training logs."""
