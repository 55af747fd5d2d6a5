"""Mixes: batch to batch, several images and their labels in one."""

from lightning_modules.mixes.cutmix import CutMix
from lightning_modules.mixes.mixup import Mixup
from lightning_modules.mixes.saliencymix import SaliencyMix

__all__ = ["CutMix", "Mixup", "SaliencyMix"]
