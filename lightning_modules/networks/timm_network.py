"""Networks of the timm library, for images in [0, 1]."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError, UnknownOptionError
from lightning_modules.networks.network import VectorNetwork
from lightning_modules.networks.weights import load


class TimmNetwork(VectorNetwork):
    """A timm model that normalizes its own input.

    Args:
        name: timm's name of the model, with the tag of its weights if there are several.
        num_classes: Number of outputs; the command line takes it from the data.
        pretrained: Whether to start from timm's published weights.
        weights: Weights to start from instead, for machines that are offline: a file, a package of
            the extra ``weights`` such as ``efficientnet_lite0``, or ``hf-hub:ORG/NAME`` in the
            local cache of Hugging Face; see :func:`~lightning_modules.networks.weights.load`.
        drop_rate: Dropout probability before the classifier, in [0, 1).
        drop_path_rate: Probability of dropping a residual branch (stochastic depth), in [0, 1).
        options: Further arguments of ``timm.create_model``, such as {depth: 6} for a transformer.
        size: Height and width of the images in pixels; the command line takes it from the data. A
            model with a fixed input size, such as most vision transformers, is built for this
            size; other models do not need it.

    Shape:
        Images (B, 3, H, W) in [0, 1] to logits (B, num_classes).

    Raises:
        ModelError: The name is unknown, the weights could not be loaded, or the model cannot be
            built for images of this size.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        num_classes: int = 7,
        pretrained: bool = True,
        weights: str | Path | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        options: Mapping[str, Any] | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        arguments = {
            "num_classes": num_classes,
            "drop_rate": drop_rate,
            **({"drop_path_rate": drop_path_rate} if drop_path_rate else {}),
            **(options or {}),
        }
        model: Any = create_for(size, name, pretrained, weights, **arguments)
        if weights or (pretrained and num_classes != model.pretrained_cfg["num_classes"]):
            start_small(model.get_classifier())  # which is new
        # The memory format with the fastest convolutions in oneDNN and on tensor cores.
        self.model = model.to(memory_format=torch.channels_last)
        self.normalize_as(self.model)

    def normalize_as(self, model: Any) -> None:
        """Take the normalization of images from a timm ``model``."""
        for statistic in ("mean", "std"):
            values = torch.tensor(model.pretrained_cfg[statistic]).view(-1, 1, 1)
            self.register_buffer(statistic, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to the mean and standard deviation of the weights' training."""
        return ((images - self.mean) / self.std).to(
            self.mean.dtype
        )  # half precision if the network is

    def features(self, images: Tensor) -> Tensor:
        """The last feature map: (B, C, h, w), or tokens (B, L, C) of a plain transformer."""
        features = self.model.forward_features(self.normalize(images))
        return features.movedim(-1, 1) if self._channels_last else features

    def encode(self, images: Tensor) -> Tensor:
        """The vector (B, C) of each image that the classifier receives."""
        features = self.features(images)
        if self._channels_last:
            features = features.movedim(1, -1)
        return self.model.forward_head(features, pre_logits=True)

    def vectors(self, images: Tensor) -> Tensor:
        return self.encode(images)

    @property
    def classifier(self) -> nn.Module:
        classifier: nn.Module = self.model.get_classifier()
        return classifier

    @property
    def width(self) -> int:
        """Size C of the vectors of :meth:`encode`."""
        return self.model.head_hidden_size

    @property
    def channels(self) -> int:
        """Number of channels of the feature map of :meth:`features`."""
        return self.model.num_features

    def classify(self, features: Tensor) -> Tensor:
        """Feature maps of :meth:`features` to logits (B, num_classes)."""
        return self.model.forward_head(features.movedim(1, -1) if self._channels_last else features)

    @property
    def _channels_last(self) -> bool:
        return getattr(self.model, "output_fmt", None) == "NHWC"  # as in Swin

    def drop_head(self) -> None:
        """Remove all layers after the last feature map.

        These are 120 of the 134 million parameters of VGG-16, and DistributedDataParallel fails
        at parameters without a gradient.
        """
        if hasattr(self.model, "prune_intermediate_layers"):
            self.model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)

    def drop_last_pool(self) -> None:
        """Remove the last max-pool of a VGG, for feature maps of twice the resolution."""
        layers = getattr(self.model, "features", None)
        if isinstance(layers, nn.Sequential) and isinstance(layers[-1], nn.MaxPool2d):
            layers[-1] = nn.Identity()


def create_for(
    size: int | None, name: str, pretrained: bool, weights: str | Path | None, **kwargs: Any
) -> nn.Module:
    """A model as by :func:`create`, rebuilt for ``size`` if it rejects images of this size."""
    model: Any = create(name, pretrained, weights, **kwargs)
    if size is None:
        return model
    _refuse_cut_patches(model, name, size)
    native = model.pretrained_cfg["input_size"][-1]
    if size == kwargs.get("img_size", native):
        return model
    if (reason := _refusal(model, size)) is None:
        return model
    try:
        if "img_size" not in kwargs:
            model = create(name, pretrained, weights, **kwargs, img_size=size)
            reason = _refusal(model, size)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        reason = error  # no argument img_size, or a value that the model does not support
    if reason is None:
        return model
    raise ModelError(
        f"{name} does not support images of {size} pixels ({_first_line(reason)}): set "
        f"--data.size={native}, or timm's options for another size in --model.network.options."
    ) from reason


def _refuse_cut_patches(model: Any, name: str, size: int) -> None:
    """Refuse images of no whole number of patches: most transformers would ignore the rest."""
    embedding: Any = getattr(model, "patch_embed", None) or getattr(model, "embeds", None)
    if not hasattr(embedding, "feat_ratio"):
        return
    patch = embedding.feat_ratio()
    if remainder := size % patch:
        smaller = size - remainder
        sizes = " or ".join(str(x) for x in (smaller, smaller + patch) if x)
        raise ModelError(
            f"{name} cuts images into patches of {patch} pixels, and {size} pixels are no whole "
            f"number of them: set --data.size={sizes}."
        )


@torch.no_grad()
def _refusal(model: Any, size: int) -> Exception | None:
    """The error of a model at an image of ``size`` pixels, or None if it supports this size."""
    try:
        model.eval().forward_features(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        return error
    finally:
        model.train()
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def start_small(classifier: nn.Module) -> None:
    """Start a linear classifier of pretrained vectors (B, C) as torch does, within +-1 / sqrt(C).

    timm starts the K rows of an EfficientNet's within +-1 / sqrt(K), made for a thousand classes.
    The first logits of seven have a standard deviation of 3, and fine-tuning starts from their
    errors.
    """
    if isinstance(classifier, nn.Linear):
        classifier.reset_parameters()


def create(name: str, pretrained: bool, weights: str | Path | None, **kwargs: Any) -> nn.Module:
    """A model by ``timm.create_model``, with errors that name the options to change."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0)
        raise ModelError(
            f"timm has no model {name!r}: choose another name, such as {', '.join(near)}."
        )
    try:
        model = timm.create_model(name, pretrained=pretrained and weights is None, **kwargs)
        if weights is not None:
            load(model, name, weights)
        return model
    except TypeError as error:
        raise UnknownOptionError(
            f"timm cannot build {name} with these options ({_first_line(error)}): correct "
            "--model.network.options."
        ) from error
    except Exception as error:
        if not pretrained or weights is not None:
            raise
        raise ModelError(
            f"The pretrained weights of {name} could not be loaded ({type(error).__name__}): start "
            "from random weights with --model.network.pretrained=false, or from a file or an "
            "installed package with --model.network.weights=FILE. If the network has an encoder, "
            "set these options of --model.network.encoder (BALLAD: --model.network.towers.encoder)."
        ) from error
