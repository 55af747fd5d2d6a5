"""Modules: training and evaluation of each method."""

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
