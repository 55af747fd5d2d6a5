"""HAM10000 and other images of lesions: split by lesion, cached, sampled and augmented."""

# All modules whose classes options name, so that `fit --help` lists them.
from datamodules import samplers, splits, transforms, views
from datamodules.classes import CLASSES, Classes
from datamodules.errors import DataError
from datamodules.ham10000 import HAM10000
from datamodules.lesion_data import LesionData

__all__ = [
    "CLASSES",
    "HAM10000",
    "Classes",
    "DataError",
    "LesionData",
    "samplers",
    "splits",
    "transforms",
    "views",
]
