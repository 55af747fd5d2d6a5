"""How a method learns."""

from lightning_modules.classifier import Classifier
from lightning_modules.networks import WeightsError

__all__ = ["Classifier", "WeightsError"]
