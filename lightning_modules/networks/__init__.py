"""Networks: images to logits."""

from lightning_modules.networks.timm_network import TimmNetwork, WeightsError

__all__ = ["TimmNetwork", "WeightsError"]
