"""Network of SimSiam: an encoder with a projector and a predictor."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.networks.contrastive import perceptron
from lightning_modules.networks.timm_network import TimmNetwork


class SimSiamNetwork(nn.Module):
    """An encoder with SimSiam's projector and predictor (https://arxiv.org/abs/2011.10566).

    As in the published code, the projector has three linear layers, each followed by batch norm,
    the last one without scale and shift; the predictor has two, with batch norm in between, and is
    narrower in the middle.

    Args:
        encoder: Network from images to vectors (B, C); its classifier is removed.
        embedding: Dimension D of the embeddings, at least 1.
        hidden: Width of the hidden layer of the predictor, at least 1; a quarter of D in the paper.

    Shape:
        Images (B, 3, H, W) in [0, 1] to embeddings z (B, D).
    """

    def __init__(self, encoder: TimmNetwork, embedding: int = 2048, hidden: int = 512) -> None:
        super().__init__()
        encoder.model.reset_classifier(0)
        width = encoder.width
        self.encoder = encoder
        self.projector = perceptron(width, width, embedding, layers=3, norm="all")
        self.predictor = nn.Sequential(
            nn.Linear(embedding, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, embedding),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder.encode(images))
