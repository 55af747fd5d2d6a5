"""Mixes of several images of a batch and of their labels; those of SPMix mix tokens."""

from lightning_modules.mixes.balanced_mixup import BalancedMixup
from lightning_modules.mixes.cmo import CMO
from lightning_modules.mixes.cutmix import CutMix
from lightning_modules.mixes.mix import Mix
from lightning_modules.mixes.mixup import Mixup
from lightning_modules.mixes.mixup_or_cutmix import MixupOrCutMix
from lightning_modules.mixes.remix import Remix
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
    "CMO",
    "BalancedMixup",
    "CutMix",
    "FillingPatchMix",
    "Mix",
    "Mixup",
    "MixupOrCutMix",
    "PairMixup",
    "PatchMix",
    "RandomPatchMix",
    "Remix",
    "SaliencyMix",
    "SaliencyMixup",
    "SalientHalfMix",
]
