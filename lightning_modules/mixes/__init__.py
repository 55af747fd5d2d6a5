"""Mixes of several images of a batch and of their labels; those of SPMix mix tokens."""

from lightning_modules.mixes.cutmix import CutMix
from lightning_modules.mixes.mix import Mix
from lightning_modules.mixes.mixup import Mixup
from lightning_modules.mixes.mixup_or_cutmix import MixupOrCutMix
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
    "Mix",
    "Mixup",
    "MixupOrCutMix",
    "PairMixup",
    "PatchMix",
    "RandomPatchMix",
    "SaliencyMix",
    "SaliencyMixup",
    "SalientHalfMix",
]
