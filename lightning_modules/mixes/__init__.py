"""Mixes: batch to batch, several images and their labels in one; SPMix's are of tokens."""

from lightning_modules.mixes.cutmix import CutMix
from lightning_modules.mixes.mixup import Mixup
from lightning_modules.mixes.saliencymix import SaliencyMix
from lightning_modules.mixes.spmix import (
    FillingPatchMix,
    PairMixup,
    PatchMix,
    RandomPatchMix,
    SaliencyMixup,
    SalientHalfMix,
)

__all__ = [
    "CutMix",
    "FillingPatchMix",
    "Mixup",
    "PairMixup",
    "PatchMix",
    "RandomPatchMix",
    "SaliencyMix",
    "SaliencyMixup",
    "SalientHalfMix",
]
