"""Upgrade files of older formats to the current one."""
