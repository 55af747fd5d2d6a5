"""What a network sees: HAM10000 split by lesion, cached, sampled and augmented."""

from datamodules.dataset import DataError
from datamodules.ham10000 import HAM10000

__all__ = ["HAM10000", "DataError"]
