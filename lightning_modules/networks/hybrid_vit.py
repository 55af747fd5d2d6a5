"""Vision transformers with access to their tokens, hybrid or plain."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from timm.layers.hybrid_embed import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.timm_network import TimmNetwork, create


class HybridViT(TimmNetwork):
    """Hybrid vision transformer (https://arxiv.org/abs/2010.11929, section 3.1).

    The feature map of a CNN, or the image itself in a plain transformer, is cut into patches that
    are projected to tokens (:meth:`tokens`). A class token, a position embedding and the blocks of
    the transformer follow (:meth:`encode_tokens`).

    Without ``cnn`` the model is one of timm's, for example ``vit_small_r26_s32_224``. With ``cnn``
    the transformer receives the feature map of the first stages of that network; ``pretrained``
    and ``weights`` then refer to the CNN, and the transformer starts from random weights. SPMix
    uses ``vit_small_resnet50d_s16_224`` on ``resnet50d``.

    Args:
        name: timm's name of a vision transformer, hybrid or plain.
        num_classes: Number of outputs; the command line takes it from the data.
        pretrained: Whether to start from timm's published weights of the model, or of ``cnn``.
        weights: Weights to start from instead, as for :class:`TimmNetwork`.
        drop_rate: Dropout probability before the classifier, in [0, 1).
        drop_path_rate: Probability of dropping a residual branch (stochastic depth), in [0, 1).
        options: Further arguments of ``timm.create_model``, such as {depth: 6, embed_dim: 192}.
        size: Height and width of the images in pixels, to which timm resamples the position
            embedding; the command line takes it from the data.
        cnn: timm's name of a convolutional network; None for a model of timm as it is.
        cnn_stages: Number of stages of ``cnn``, each of which halves the resolution; 3 stages of a
            ResNet give one token per 16 x 16 pixels.

    Shape:
        Images (B, 3, size, size) in [0, 1] to logits (B, num_classes).

    Raises:
        ModelError: The model is not a plain or hybrid vision transformer, or images of this size
            cannot be cut into whole patches.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 7,
        pretrained: bool = True,
        weights: str | Path | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        options: Mapping[str, Any] | None = None,
        size: int = 224,
        cnn: str | None = None,
        cnn_stages: int = 3,
    ) -> None:
        # One size for all images, so that a token always has the same position.
        options = {"img_size": size, "dynamic_img_size": False} | dict(options or {})
        stage: Any = None
        if cnn is not None:
            stage = create(cnn, pretrained, weights, features_only=True, out_indices=[cnn_stages])
            _drop_later_stages(stage)
            options |= {"patch_size": 1, "embed_layer": partial(HybridEmbed, backbone=stage)}
            pretrained, weights = False, None
        try:
            super().__init__(
                name, num_classes, pretrained, weights, drop_rate, drop_path_rate, options
            )
        except TypeError as error:
            raise ModelError(
                f"{name} is not a supported vision transformer ({error}): choose a plain or hybrid "
                "ViT, such as vit_small_r26_s32_224."
            ) from error
        except (
            AssertionError
        ) as error:  # of timm, if the feature map cannot be cut into whole patches
            raise ModelError(_no_patches(name, size)) from error
        self._check(name, size)
        if stage is not None:
            self.normalize_as(stage)

    def _check(self, name: str, size: int) -> None:
        # Distilled and other variants add further tokens or pool differently.
        plain = VisionTransformer.forward_features
        if getattr(type(self.model), "forward_features", None) is not plain:
            raise ModelError(
                f"{name} gives no access to its tokens: choose a plain or hybrid ViT, such as "
                "vit_small_r26_s32_224."
            )
        if size % self.model.patch_embed.feat_ratio():
            raise ModelError(_no_patches(name, size))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns (h, w) of the tokens."""
        return self.model.patch_embed.grid_size

    def tokens(self, images: Tensor) -> Tensor:
        """Projected patches (B, L, D), row by row, before class token and position embedding."""
        return self.model.patch_embed(self.normalize(images))

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L, D) to the vector (B, C) of each image that the classifier receives."""
        model = self.model
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(tokens)))
        return model.forward_head(model.norm(model.blocks(tokens)), pre_logits=True)

    def encode(self, images: Tensor) -> Tensor:
        return self.encode_tokens(self.tokens(images))


def _drop_later_stages(cnn: Any) -> None:
    """Remove stages after the last one used, which timm's EfficientNets would compute."""
    (last,) = cnn.feature_info.get_dicts(keys=["module"])
    stages, _, number = last["module"].partition(".")
    if stages == "blocks" and isinstance(getattr(cnn, "blocks", None), nn.Sequential):
        cnn.blocks = cnn.blocks[: int(number) + 1]


def _no_patches(name: str, size: int) -> str:
    return f"{name} cannot cut images of {size} pixels into whole patches: change --data.size."
