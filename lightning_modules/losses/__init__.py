"""Losses: logits (B, K) and labels (B,), or soft labels (B, K), to a scalar."""

from lightning_modules.losses.balanced_contrastive import BalancedContrastiveLoss
from lightning_modules.losses.class_balanced import EffectiveNumber, InverseFrequency
from lightning_modules.losses.cost_sensitive import (
    CostSensitiveLoss,
    ExpectedCostLoss,
    MistakeCosts,
)
from lightning_modules.losses.criterion import ContrastiveLoss, Criterion
from lightning_modules.losses.cross_entropy import CrossEntropyLoss
from lightning_modules.losses.equalization import EqualizationLoss, SoftmaxEqualizationLoss
from lightning_modules.losses.experts import BalPoELoss, ExpertsLoss, SADELoss
from lightning_modules.losses.focal import FocalLoss, SigmoidFocalLoss
from lightning_modules.losses.gaussian_clouded import GCLLoss
from lightning_modules.losses.generalized_reweight import GeneralizedReweight
from lightning_modules.losses.label_aware_smoothing import LabelAwareSmoothingLoss
from lightning_modules.losses.lade import LADELoss
from lightning_modules.losses.ldam import LDAMLoss
from lightning_modules.losses.logit_adjusted import LogitAdjustedLoss
from lightning_modules.losses.ohem import OHEMLoss
from lightning_modules.losses.paco import PaCoLoss
from lightning_modules.losses.rate_distortion import RateDistortionLoss
from lightning_modules.losses.ride import RIDELoss
from lightning_modules.losses.sample_loss import ClassWeights, SampleLoss
from lightning_modules.losses.seesaw import SeesawLoss
from lightning_modules.losses.selection import SelectedLoss
from lightning_modules.losses.self_paced import SelfPacedLoss
from lightning_modules.losses.soft_f1 import SoftMacroF1Loss
from lightning_modules.losses.supcon import SupConLoss
from lightning_modules.losses.vector_scaling import VSLoss

__all__ = [
    "BalPoELoss",
    "BalancedContrastiveLoss",
    "ClassWeights",
    "ContrastiveLoss",
    "CostSensitiveLoss",
    "Criterion",
    "CrossEntropyLoss",
    "EffectiveNumber",
    "EqualizationLoss",
    "ExpectedCostLoss",
    "ExpertsLoss",
    "FocalLoss",
    "GCLLoss",
    "GeneralizedReweight",
    "InverseFrequency",
    "LADELoss",
    "LDAMLoss",
    "LabelAwareSmoothingLoss",
    "LogitAdjustedLoss",
    "MistakeCosts",
    "OHEMLoss",
    "PaCoLoss",
    "RIDELoss",
    "RateDistortionLoss",
    "SADELoss",
    "SampleLoss",
    "SeesawLoss",
    "SelectedLoss",
    "SelfPacedLoss",
    "SigmoidFocalLoss",
    "SoftMacroF1Loss",
    "SoftmaxEqualizationLoss",
    "SupConLoss",
    "VSLoss",
]
