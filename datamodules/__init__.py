"""HAM10000: split by lesion, cached, sampled and augmented."""

# All modules whose classes options name, so that `fit --help` lists them.
from datamodules import samplers, splits, transforms, views
from datamodules.classes import CLASS_TITLES, CLASSES
from datamodules.errors import DataError
from datamodules.ham10000 import HAM10000

__all__ = [
    "CLASSES",
    "CLASS_TITLES",
    "HAM10000",
    "DataError",
    "samplers",
    "splits",
    "transforms",
    "views",
]
