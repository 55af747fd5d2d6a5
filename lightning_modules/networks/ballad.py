"""BALLAD: classes are what their descriptions say, read by a text tower beside the image tower."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.timm_network import TimmNetwork

DESCRIPTIONS = {
    "akiec": "actinic keratosis, a scaly red patch of sun-damaged skin",
    "bcc": "basal cell carcinoma, a pearly bump with branching vessels",
    "bkl": "benign keratosis, a sharply bordered plaque with cysts and ridges",
    "df": "dermatofibroma, a firm nodule with a pale centre like a scar",
    "mel": "melanoma, an asymmetric dark lesion of many colours",
    "nv": "melanocytic nevus, a symmetric mole with a regular network",
    "vasc": "vascular lesion, red and purple lacunae full of blood",
}


class Towers(nn.Module):
    """An image tower and a text tower that meet in a space of ``width`` dimensions, D."""

    width: int

    @abstractmethod
    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Texts to what :meth:`read` takes, (K, ...)."""

    @abstractmethod
    def see(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to features (B, D)."""

    @abstractmethod
    def read(self, tokens: Tensor) -> Tensor:
        """Tokens (K, ...) to features (K, D)."""


class SmallTowers(Towers):
    """A timm network and hashed words, each with a projection that is learned.

    BALLAD without CLIP: it lacks CLIP's alignment of pictures with language, which is the paper's
    main source of gain, so the paper's numbers are not to be expected of it.

    Args:
        encoder: Images to vectors; its own classifier is removed.
        width: D.
        vocabulary: Into how many dimensions words and their three-letter pieces are hashed.
    """

    def __init__(self, encoder: TimmNetwork, width: int = 512, vocabulary: int = 1024) -> None:
        super().__init__()
        encoder.model.reset_classifier(0)
        self.encoder, self.width, self.vocabulary = encoder, width, vocabulary
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

    def see(self, images: Tensor) -> Tensor:
        return self.of_images(self.encoder.encode(images))

    def read(self, tokens: Tensor) -> Tensor:
        return self.of_texts(tokens)


class CLIPTowers(Towers):
    """CLIP (https://arxiv.org/abs/2103.00020) by ``open_clip_torch``, an extra of the installation.

    Its batch norm learns in phase 1; BALLAD's published code leaves it in evaluation mode.

    Args:
        weights: A local file of weights that open_clip reads.
        name: open_clip's name of the model; OpenAI's RN50 is ``RN50-quickgelu``, for 224 pixels.

    Raises:
        ModelError: open_clip is not installed, or the weights are not there or of another model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path, name: str = "RN50-quickgelu") -> None:
        super().__init__()
        try:
            import open_clip
        except ImportError as error:
            raise ModelError(
                "CLIPTowers need open_clip: pip install '.[clip]', or take SmallTowers."
            ) from error
        if not weights.exists():
            raise ModelError(f"{weights} does not exist: correct the weights of CLIPTowers.")
        try:
            self.model: Any = open_clip.create_model(name, pretrained=str(weights))
        except Exception as error:
            raise ModelError(f"{weights} cannot be had as CLIP {name} ({error}).") from error
        self.tokenize, self.width = (
            open_clip.get_tokenizer(name),
            self.model.text_projection.shape[1],
        )
        self.model.logit_scale.requires_grad_(False)  # the network has its own, which is fixed
        for statistic in ("mean", "std"):
            values = torch.tensor(self.model.visual.preprocess_cfg[statistic]).view(-1, 1, 1)
            self.register_buffer(statistic, values, persistent=False)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        return self.tokenize(list(texts))

    def see(self, images: Tensor) -> Tensor:
        return self.model.encode_image((images - self.mean) / self.std)

    def read(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


class BALLADNetwork(nn.Module):
    """Cosines of an image with the descriptions of the classes (https://arxiv.org/abs/2111.14745).

    In the first phase the towers are trained on the natural distribution. In the second they are
    frozen, and a linear adapter A of image features, x to r A(x) + (1 - r) x, is trained on a
    class-balanced one. In both the loss is cross-entropy.

    The published code (https://github.com/gaopengcuhk/BALLAD) reads "a photo of a {class name}.";
    here the photo is dermoscopic, and the class is described, because names of diagnoses say
    little to towers that have not read of them.

    Args:
        towers: What sees images and reads descriptions.
        class_names: Names of the K classes; the command line takes them from the data.
        adapter: Whether this is the second phase.
        ratio: r; 0 gives the first phase's logits.
        scale: Largest logit.

    Shape:
        Images (B, 3, H, W) in [0, 1] to logits (B, K) in [-scale, scale], float32.
    """

    tokens: Tensor

    def __init__(
        self,
        towers: Towers,
        class_names: Sequence[str] = (),
        adapter: bool = False,
        ratio: float = 0.2,
        scale: float = 100.0,
    ) -> None:
        super().__init__()
        self.towers, self.ratio, self.scale = towers, ratio, scale
        self.adapter = nn.Linear(towers.width, towers.width, bias=False) if adapter else None
        texts = [f"a dermoscopic photo of {DESCRIPTIONS.get(c, c)}." for c in class_names]
        self.register_buffer("tokens", towers.tokens(texts), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.towers.see(images)
        if self.adapter is not None:
            features = self.ratio * self.adapter(features) + (1 - self.ratio) * features
        with torch.autocast(images.device.type, enabled=False):
            seen, read = (
                F.normalize(x.float(), dim=1) for x in (features, self.towers.read(self.tokens))
            )
            return self.scale * (seen @ read.T)
