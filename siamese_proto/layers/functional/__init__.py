"""The mathematics of the layers: functions, modules and backward rules that need torch alone.

Layers import these when they compute, and `port` copies their source. They need torch.
"""
