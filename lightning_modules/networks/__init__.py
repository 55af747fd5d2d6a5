"""Networks from images to logits."""

from lightning_modules.networks.adapters import AdaptedNetwork, Adapter, AdaptFormer, LoRA
from lightning_modules.networks.attention_decoder import AttentionDecoder
from lightning_modules.networks.ballad import BALLADNetwork, CLIPTowers, SmallTowers
from lightning_modules.networks.bbn import BBNNetwork
from lightning_modules.networks.cbam import CBAMNetwork, MultiHeadNetwork
from lightning_modules.networks.contrastive import BCLNetwork, ContrastiveNetwork
from lightning_modules.networks.disalign import DisAlign
from lightning_modules.networks.ensemble import Ensemble
from lightning_modules.networks.experts import ExpertHeads, ExpertNetwork
from lightning_modules.networks.heads import (
    CosineHead,
    KNearestNeighbors,
    LinearHead,
    MLPHead,
    NearestClassMean,
)
from lightning_modules.networks.hybrid_vit import HybridViT
from lightning_modules.networks.latent_resnet import LatentResNet
from lightning_modules.networks.learnable_weight_scaling import LearnableWeightScaling
from lightning_modules.networks.momentum_queue import MomentumPrototypes, MomentumQueue
from lightning_modules.networks.network import HierarchicalNetwork, Network, VectorNetwork
from lightning_modules.networks.new_head import NewHead
from lightning_modules.networks.probe import Probe
from lightning_modules.networks.reslt import ResLTNetwork
from lightning_modules.networks.simsiam import SimSiamNetwork
from lightning_modules.networks.tau_normalization import TauNormalized
from lightning_modules.networks.timm_network import TimmNetwork

__all__ = [
    "AdaptFormer",
    "AdaptedNetwork",
    "Adapter",
    "AttentionDecoder",
    "BALLADNetwork",
    "BBNNetwork",
    "BCLNetwork",
    "CBAMNetwork",
    "CLIPTowers",
    "ContrastiveNetwork",
    "CosineHead",
    "DisAlign",
    "Ensemble",
    "ExpertHeads",
    "ExpertNetwork",
    "HierarchicalNetwork",
    "HybridViT",
    "KNearestNeighbors",
    "LatentResNet",
    "LearnableWeightScaling",
    "LinearHead",
    "LoRA",
    "MLPHead",
    "MomentumPrototypes",
    "MomentumQueue",
    "MultiHeadNetwork",
    "NearestClassMean",
    "Network",
    "NewHead",
    "Probe",
    "ResLTNetwork",
    "SimSiamNetwork",
    "SmallTowers",
    "TauNormalized",
    "TimmNetwork",
    "VectorNetwork",
]
