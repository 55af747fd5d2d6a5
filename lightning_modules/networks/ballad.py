"""Network of BALLAD: cosines between images and descriptions of the classes."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.network import Network
from lightning_modules.networks.timm_network import TimmNetwork


class Towers(nn.Module):
    """An image encoder and a text encoder with a common feature space.

    Attributes:
        width: Dimension D of the feature space.
    """

    width: int

    @abstractmethod
    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Texts to tokens (K, ...), the input of :meth:`encode_texts`."""

    @abstractmethod
    def encode_images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to features (B, D)."""

    @abstractmethod
    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Tokens (K, ...) to features (K, D)."""


class SmallTowers(Towers):
    """A timm network and hashed words, each with a learned projection.

    These towers replace CLIP. They lack its alignment of images with language, which is the main
    source of the paper's gains, so do not expect the paper's results.

    Args:
        encoder: Network from images to vectors; its classifier is removed.
        width: Dimension D of the feature space.
        vocabulary: Number of hash buckets of words and their three-letter pieces.
    """

    def __init__(self, encoder: TimmNetwork, width: int = 512, vocabulary: int = 1024) -> None:
        super().__init__()
        encoder.model.reset_classifier(0)
        self.encoder = encoder
        self.width = width
        self.vocabulary = vocabulary
        self.of_images = nn.Linear(encoder.width, width, bias=False)
        self.of_texts = nn.Linear(vocabulary, width, bias=False)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        counts = torch.zeros(len(texts), self.vocabulary)
        for row, text in zip(counts, texts, strict=True):
            for word in text.split():
                pieces = {word, *(word[i : i + 3] for i in range(len(word) - 2))}
                for piece in pieces:
                    row[zlib.crc32(piece.encode()) % self.vocabulary] += 1
        return F.normalize(counts, dim=1)

    def encode_images(self, images: Tensor) -> Tensor:
        return self.of_images(self.encoder.encode(images))

    def encode_texts(self, tokens: Tensor) -> Tensor:
        return self.of_texts(tokens)


class CLIPTowers(Towers):
    """CLIP (https://arxiv.org/abs/2103.00020) by ``open_clip_torch``, an optional dependency.

    Batch norm is trained in phase 1; BALLAD's published code keeps it in evaluation mode.

    Args:
        weights: Local file of weights in a format of open_clip.
        name: open_clip's name of the model; OpenAI's RN50 is ``RN50-quickgelu``, for images of
            224 pixels.

    Raises:
        ModelError: open_clip is not installed, or the weights are missing or of another model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path, name: str = "RN50-quickgelu") -> None:
        super().__init__()
        try:
            import open_clip
        except ImportError as error:
            raise ModelError(
                "CLIPTowers need open_clip: run pip install '.[clip]', or use SmallTowers."
            ) from error
        if not weights.exists():
            raise ModelError(f"{weights} does not exist: correct --model.network.towers.weights.")
        try:
            self.model: Any = open_clip.create_model(name, pretrained=str(weights))
        except Exception as error:
            raise ModelError(
                f"{weights} could not be loaded as CLIP {name} ({error}): set the weights and name "
                "of --model.network.towers to those of one model."
            ) from error
        self.tokenize = open_clip.get_tokenizer(name)
        self.width = self.model.text_projection.shape[1]
        self.model.logit_scale.requires_grad_(False)  # BALLADNetwork has a fixed scale instead
        for statistic in ("mean", "std"):
            values = torch.tensor(self.model.visual.preprocess_cfg[statistic]).view(-1, 1, 1)
            self.register_buffer(statistic, values, persistent=False)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        return self.tokenize(list(texts))

    def encode_images(self, images: Tensor) -> Tensor:
        return self.model.encode_image((images - self.mean) / self.std)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


class BALLADNetwork(Network):
    """Cosines of an image with the descriptions of the classes (https://arxiv.org/abs/2111.14745).

    In the first phase the towers are trained on the natural class distribution. In the second
    phase they are frozen, and a linear adapter A of the image features x, r A(x) + (1 - r) x, is
    trained on a class-balanced distribution. Both phases use cross-entropy.

    The published code (https://github.com/gaopengcuhk/BALLAD) uses the text "a photo of a {class
    name}."; here the photo is dermoscopic and the class is described, because the names of
    diagnoses are rare in the texts that towers were trained on.

    Args:
        towers: Encoders of images and descriptions.
        class_names: Names of the K classes; the command line takes them from the data.
        descriptions: A phrase about the looks of each class, instead of its name; the command line
            takes them from the data.
        adapter: Whether to add the adapter of the second phase.
        ratio: Weight r of the adapter, in [0, 1]; 0 gives the logits of the first phase.
        scale: Largest logit, greater than 0.

    Shape:
        Images (B, 3, H, W) in [0, 1] to logits (B, K) in [-scale, scale], float32.
    """

    tokens: Tensor

    def __init__(
        self,
        towers: Towers,
        class_names: Sequence[str] = (),
        descriptions: Mapping[str, str] | None = None,
        adapter: bool = False,
        ratio: float = 0.2,
        scale: float = 100.0,
    ) -> None:
        super().__init__()
        self.towers = towers
        self.ratio = ratio
        self.scale = scale
        self.adapter = nn.Linear(towers.width, towers.width, bias=False) if adapter else None
        known = descriptions or {}
        texts = [f"a dermoscopic photo of {known.get(name, name)}." for name in class_names]
        self.register_buffer("tokens", towers.tokens(texts), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.towers.encode_images(images)
        if self.adapter is not None:
            features = self.ratio * self.adapter(features) + (1 - self.ratio) * features
        with torch.autocast(images.device.type, enabled=False):
            image_vectors = F.normalize(features.float(), dim=1)
            text_vectors = F.normalize(self.towers.encode_texts(self.tokens).float(), dim=1)
            return self.scale * (image_vectors @ text_vectors.T)
