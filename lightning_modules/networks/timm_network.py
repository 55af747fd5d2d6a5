"""Any timm backbone as a classifier of images in [0, 1]."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from lightning_modules.errors import ModelError


class TimmNetwork(nn.Module):
    """A timm model that normalises its own input.

    Args:
        name: timm's name of the model, with the tag of its weights where there are several.
        num_classes: Outputs; the command line takes it from the data.
        pretrained: Start from timm's published weights.
        weights: Start from this local file of timm's weights instead, for machines without a
            network.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth, for the models that have it.
        options: More arguments of ``timm.create_model``, for example {depth: 6} of a transformer.
        size: Height and width of the images, if known; the command line takes it from the data. A
            model that only takes images of another size, such as most vision transformers, is
            built for this one; a model that takes any size is left as it is.

    Shape:
        Images (B, 3, H, W) in [0, 1] to logits (B, num_classes).

    Raises:
        ModelError: The name is unknown, the weights cannot be had, or the model cannot be built
            for images of this size.
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
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        arguments = {
            "num_classes": num_classes,
            "drop_rate": drop_rate,
            **({"drop_path_rate": drop_path_rate} if drop_path_rate else {}),
            **(options or {}),
        }
        model = create_for(size, name, pretrained, weights, **arguments)
        # What oneDNN and tensor cores convolve fastest.
        self.model: Any = model.to(memory_format=torch.channels_last)
        self.normalise_as(self.model)

    def normalise_as(self, model: Any) -> None:
        """Normalises images as the weights of the timm ``model`` expect them."""
        for statistic in ("mean", "std"):
            values = torch.tensor(model.pretrained_cfg[statistic]).view(-1, 1, 1)
            self.register_buffer(statistic, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))

    def normalise(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).to(self.mean.dtype)  # half, if the network is

    def features(self, images: Tensor) -> Tensor:
        """The last feature map: (B, C, h, w), or tokens (B, L, C) of a plain transformer."""
        features = self.model.forward_features(self.normalise(images))
        return features.movedim(-1, 1) if self._channels_last else features

    def encode(self, images: Tensor) -> Tensor:
        """One vector (B, C) an image: what the classifier sees."""
        features = self.features(images)
        if self._channels_last:
            features = features.movedim(1, -1)
        return self.model.forward_head(features, pre_logits=True)

    @property
    def width(self) -> int:
        """C of :meth:`encode`."""
        return self.model.head_hidden_size

    def classify(self, features: Tensor) -> Tensor:
        """What :meth:`features` gives to logits (B, num_classes)."""
        return self.model.forward_head(features.movedim(1, -1) if self._channels_last else features)

    @property
    def _channels_last(self) -> bool:
        return getattr(self.model, "output_fmt", None) == "NHWC"  # Swin and its like


def create_for(
    size: int | None, name: str, pretrained: bool, weights: Path | None, **kwargs: Any
) -> nn.Module:
    """:func:`create`, for images of a size: only a model that refuses them is built anew."""
    model: Any = create(name, pretrained, weights, **kwargs)
    native = model.pretrained_cfg["input_size"][-1]
    if size is None or size == kwargs.get("img_size", native):
        return model
    if (why := _refusal(model, size)) is None:
        return model
    try:
        if "img_size" not in kwargs:
            model = create(name, pretrained, weights, **kwargs, img_size=size)
            why = _refusal(model, size)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        why = error  # some models have no such argument, others cannot have this value
    if why is None:
        return model
    raise ModelError(
        f"{name} cannot take images of {size} pixels ({_first_line(why)}): set "
        f"--data.size={native}, or other timm options in --model.network.options, such as img_size."
    ) from why


@torch.no_grad()
def _refusal(model: Any, size: int) -> Exception | None:
    """What a model in training mode raises at an image of a size; None if it takes it."""
    try:
        model.eval().forward_features(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        return error
    finally:
        model.train()
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def create(name: str, pretrained: bool, weights: Path | None, **kwargs: Any) -> nn.Module:
    """``timm.create_model``, with the errors and arguments of :class:`TimmNetwork`."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0)
        raise ModelError(f"timm has no model {name!r}; nearest are {', '.join(near)}.")
    if weights is not None:
        model = timm.create_model(name, pretrained=False, **kwargs)
        _load(model, name, weights)
        return model
    try:
        return timm.create_model(name, pretrained=pretrained, **kwargs)
    except Exception as error:
        if not pretrained or isinstance(error, TypeError):
            raise
        raise ModelError(
            f"The pretrained weights of {name} cannot be had ({type(error).__name__}): start from "
            "random weights with --model.network.pretrained=false, or from a file with "
            "--model.network.weights=FILE; of a network with an encoder these are options of "
            "--model.network.encoder, of BALLAD's of --model.network.towers.encoder."
        ) from error


def _load(model: Any, name: str, file: Path) -> None:
    """Loads all but the classifier from timm's weights, or from a checkpoint of a run of ours."""
    if not file.exists():
        raise ModelError(f"{file} does not exist: correct --model.network.weights.")
    try:
        state = timm.models.load_state_dict(str(file))
    except Exception as error:
        raise ModelError(f"{file} holds no weights that can be read ({error}).") from error
    state = {key.removeprefix("network.model."): value for key, value in state.items()}
    classifier = model.pretrained_cfg.get("classifier") or "head"
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    wanted = {key for key in model.state_dict() if not key.startswith(heads)}
    if lacking := wanted - state.keys():
        raise ModelError(
            f"{file} holds no weights of {name}: {len(lacking)} of {len(wanted)} are not in it, "
            f"{min(lacking)} among them."
        )
    if "pos_embed" in wanted:  # of images of another size
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        state["pos_embed"] = resample_abs_pos_embed(
            state["pos_embed"], list(model.patch_embed.grid_size), num_prefix_tokens=prefix
        )
    own = model.state_dict()
    if misfits := [key for key in sorted(wanted) if state[key].shape != own[key].shape]:
        raise ModelError(
            f"{file} holds weights of another shape than {name} has here, {misfits[0]} among "
            "them: correct --model.network.weights, or the options of the network."
        )
    model.load_state_dict({key: state[key] for key in wanted}, strict=False)
