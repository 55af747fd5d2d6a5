"""Vision transformers whose tokens can be reached, with a convolutional stage or without."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from timm.layers.hybrid_embed import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.networks.timm_network import TimmNetwork, create


class HybridViT(TimmNetwork):
    """Hybrid vision transformer (https://arxiv.org/abs/2010.11929, section 3.1).

    A CNN's feature map, or the image itself in a plain transformer, is cut into patches and
    projected to tokens; to these come a class token and a position embedding, and then the
    transformer's blocks. :meth:`tokens` and :meth:`encode_tokens` are the two halves.

    Without ``cnn`` the model is as timm publishes it, for example ``vit_small_r26_s32_224``. With
    it, the first stages of another network are what the transformer looks at, and ``pretrained``
    and ``weights`` are of that network: the transformer starts from random weights. So SPMix has
    it: ``vit_small_resnet50d_s16_224`` on ``resnet50d``.

    Args:
        name: timm's name of a vision transformer, hybrid or plain.
        num_classes: Outputs; the command line takes it from the data.
        pretrained: Start from timm's published weights, of the whole model or of ``cnn``.
        weights: Start from this local file of them instead.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth.
        options: More arguments of ``timm.create_model``, for example {depth: 6, embed_dim: 192}.
        size: Height and width of the images, to which timm resamples the position embedding; the
            command line takes it from the data.
        cnn: timm's name of a convolutional network.
        cnn_stages: How many of its stages, each of half the resolution of the one before; 3 of a
            ResNet have one token for 16 x 16 pixels.

    Shape:
        Images (B, 3, size, size) in [0, 1] to logits (B, num_classes).

    Raises:
        ModelError: timm's model has no such tokens, or images of this size no whole patches.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 7,
        pretrained: bool = True,
        weights: Path | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        options: Mapping[str, Any] | None = None,
        size: int = 224,
        cnn: str | None = None,
        cnn_stages: int = 3,
    ) -> None:
        # One size for all images, so that a token has one place.
        options = {"img_size": size, "dynamic_img_size": False} | dict(options or {})
        stage: Any = None
        if cnn is not None:
            stage = create(cnn, pretrained, weights, features_only=True, out_indices=[cnn_stages])
            options |= {"patch_size": 1, "embed_layer": partial(HybridEmbed, backbone=stage)}
            pretrained, weights = False, None
        try:
            super().__init__(
                name, num_classes, pretrained, weights, drop_rate, drop_path_rate, options
            )
        except TypeError as error:
            raise ModelError(f"{name} cannot be had as a vision transformer ({error}).") from error
        except AssertionError as error:  # timm's, whose feature map has no whole number of patches
            raise ModelError(_no_patches(name, size)) from error
        self._check(name, size)
        if stage is not None:
            self.normalise_as(stage)

    def _check(self, name: str, size: int) -> None:
        # Distilled and other variants add tokens or pool in ways of their own.
        own = VisionTransformer.forward_features
        if getattr(type(self.model), "forward_features", None) is not own:
            raise ModelError(
                f"{name} has no tokens between patches and blocks that timm shows: choose a plain "
                "or hybrid ViT, such as vit_small_r26_s32_224."
            )
        if size % self.model.patch_embed.feat_ratio():
            raise ModelError(_no_patches(name, size))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns (h, w) of the tokens."""
        return self.model.patch_embed.grid_size

    def tokens(self, images: Tensor) -> Tensor:
        """Projected patches (B, L, D), row by row, before class token and position embedding."""
        return self.model.patch_embed(self.normalise(images))

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L, D) to one vector (B, C) an image: what the classifier sees."""
        model = self.model
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(tokens)))
        return model.forward_head(model.norm(model.blocks(tokens)), pre_logits=True)

    def encode(self, images: Tensor) -> Tensor:
        return self.encode_tokens(self.tokens(images))


def _no_patches(name: str, size: int) -> str:
    return f"{name} cannot cut images of {size} pixels into whole patches: change data.size."
