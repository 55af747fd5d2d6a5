"""Definitions that metrics of torch and of NumPy share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Shots = Mapping[str, Sequence[str]]  # classes of the groups many, medium and few
CALIBRATION_BINS = 15  # of equal width
MIN_PROBABILITY = 1e-30  # single precision rounds smaller ones to 0, whose logarithm is infinite
