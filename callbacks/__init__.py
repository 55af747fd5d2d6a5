"""Callbacks and loggers of a run, each as ``callbacks.<Class>``; ``README.md`` lists them.

A class is imported when it is first used, so that ``import callbacks`` stays cheap.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

# The module of each class, below this package.
HOMES = {
    "Anneal": "stages.anneal",
    "ArgMax": "recording.decision",
    "AttentionMaps": "looking.attention_maps",
    "BestArtifact": "recording.artifact",
    "Charts": "looking.charts",
    "ChooseDecision": "recording.choose_decision",
    "ClassConditional": "recording.sets",
    "ClassMeans": "stages.class_means",
    "Collapse": "looking.collapse",
    "Compile": "stages.compiled",
    "DurableCheckpointIO": "safety.checkpoint_io",
    "EMA": "stages.ema",
    "Ending": "safety.ending",
    "FidelityTable": "recording.fidelity_table",
    "FiniteLoss": "safety.finite_loss",
    "Freeze": "stages.freeze",
    "History": "recording.history",
    "ImbSAM": "stages.sharpness",
    "IsicSubmission": "recording.isic_submission",
    "LogConfig": "recording.log_config",
    "LogitAdjustment": "recording.decision",
    "Marginal": "recording.sets",
    "MinimumCost": "recording.decision",
    "MixingPicture": "looking.mixing_picture",
    "MixingShortcut": "looking.mixing_shortcut",
    "Moved": "safety.moved",
    "Overlays": "looking.overlays",
    "PerClass": "recording.per_class",
    "Predictions": "recording.predictions",
    "Preemption": "safety.preemption",
    "PrevalenceAdjusted": "recording.sets",
    "Reconstructions": "looking.reconstructions",
    "ResilientWandbLogger": "recording.wandb_logger",
    "Resources": "recording.resources",
    "Results": "recording.results",
    "SAM": "stages.sharpness",
    "Sensitivity": "recording.decision",
    "SplitTable": "recording.split_table",
    "StartFrom": "stages.start_from",
    "WarmStart": "stages.warm_start",
}
# Run folders recorded before the modules were grouped name ``callbacks.<module>.<Class>``. The
# command line asks this package for the attribute ``<module>``, and gets the package itself.
FORMER_CLASSES = {"Cost": "Resources", "Saliency": "AttentionMaps"}
FORMER_MODULES = {"cost", "saliency", *(home.rpartition(".")[2] for home in HOMES.values())}


def __getattr__(name: str) -> Any:
    name = FORMER_CLASSES.get(name, name)
    if name in HOMES:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    if name in FORMER_MODULES:
        return sys.modules[__name__]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
