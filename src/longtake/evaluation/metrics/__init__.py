"""Metrics as pure functions on tensors: no files, no networks, no randomness but a generator that is given.

Two conventions. Features are (N, D), one row per clip, in an order that the caller fixes (by clip, never by arrival):
then a number does not depend on batch size or on the number of processes. Clips are (B, C, T, H, W), uint8 or float in
[-1, 1]. Numbers are computed in float64; a metric of one clip returns a tensor (B,), a metric of a set a float.

A metric that stands in for one with a network that we do not ship carries the replacement in its name, behind an @.
"""
