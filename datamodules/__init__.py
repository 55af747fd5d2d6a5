"""HAM10000 and other images of lesions: split by lesion, cached, sampled and augmented.

A name is imported when it is first used: torch and Lightning take seconds, and modules such as
``datamodules.tables`` need neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# The module of each name, below this package.
HOMES = {
    "CLASSES": "classes",
    "Classes": "classes",
    "DataError": "errors",
    "HAM10000": "ham10000",
    "LesionData": "lesion_data",
}
MODULES = ("samplers", "splits", "transforms", "views")


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES, *MODULES})
