"""Modules: training and evaluation of each method.

A class is imported when it is first used: torch and Lightning take seconds, and
``lightning_modules.definitions`` needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.bbn import BBN
    from lightning_modules.bcl import BCL
    from lightning_modules.care import CARE
    from lightning_modules.classifier import Classifier
    from lightning_modules.compression import CompressedClassifier, Compression, LatentClassifier
    from lightning_modules.contrastive import ContrastiveClassifier
    from lightning_modules.errors import ModelError
    from lightning_modules.experts import Experts
    from lightning_modules.hierarchical import HierarchicalClassifier, PathClassifier
    from lightning_modules.learner import Learner
    from lightning_modules.one_pass import OnePassClassifier
    from lightning_modules.paco import PaCo
    from lightning_modules.proco import ProCo
    from lightning_modules.reslt import ResLT
    from lightning_modules.second_stage import SecondStage
    from lightning_modules.simsiam import SimSiam
    from lightning_modules.spmix import SPMix
    from lightning_modules.supcon import SupCon
    from lightning_modules.tau_normalization import TauNormalization

__all__ = [
    "BBN",
    "BCL",
    "CARE",
    "Classifier",
    "CompressedClassifier",
    "Compression",
    "ContrastiveClassifier",
    "Experts",
    "HierarchicalClassifier",
    "LatentClassifier",
    "Learner",
    "ModelError",
    "OnePassClassifier",
    "PaCo",
    "PathClassifier",
    "ProCo",
    "ResLT",
    "SPMix",
    "SecondStage",
    "SimSiam",
    "SupCon",
    "TauNormalization",
]

# The module of each class, below this package.
HOMES = {
    "BBN": "bbn",
    "BCL": "bcl",
    "CARE": "care",
    "Classifier": "classifier",
    "CompressedClassifier": "compression",
    "Compression": "compression",
    "ContrastiveClassifier": "contrastive",
    "Experts": "experts",
    "HierarchicalClassifier": "hierarchical",
    "LatentClassifier": "compression",
    "Learner": "learner",
    "ModelError": "errors",
    "OnePassClassifier": "one_pass",
    "PaCo": "paco",
    "PathClassifier": "hierarchical",
    "ProCo": "proco",
    "ResLT": "reslt",
    "SPMix": "spmix",
    "SecondStage": "second_stage",
    "SimSiam": "simsiam",
    "SupCon": "supcon",
    "TauNormalization": "tau_normalization",
}
PARTS = ("codecs", "losses", "mixes", "networks")


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    if name in PARTS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES, *PARTS})
