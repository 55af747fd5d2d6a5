"""Parameter-efficient fine-tuning: LoRA and AdaptFormer in a frozen transformer of timm."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.contrastive import CosineClassifier
from lightning_modules.networks.timm_network import TimmNetwork


class Adapter(ABC):
    """Base of the small trained modules that :class:`AdaptedNetwork` accepts."""

    @abstractmethod
    def insert(self, model: nn.Module) -> None:
        """Replace layers of a frozen ``model`` by adapted ones, with new trainable parameters."""


class LoRA(Adapter):
    """Low-rank updates of linear layers (https://arxiv.org/abs/2106.09685, eq. 3).

    timm computes queries, keys and values by one layer ``qkv``, whose update is of low rank as a
    whole. The paper updates those of queries and values separately.

    Args:
        rank: Rank r of the updates, at least 1.
        alpha: Scale of the updates, which are multiplied by alpha / r.
        layers: Last names of the linear layers: ``qkv`` and ``proj`` of the attention, ``fc1`` and
            ``fc2`` of the MLP.
    """

    def __init__(self, rank: int = 8, alpha: float = 8.0, layers: Sequence[str] = ("qkv",)) -> None:
        self.rank = rank
        self.alpha = alpha
        self.layers = tuple(layers)

    def insert(self, model: nn.Module) -> None:
        adapted = 0
        for name, module in list(model.named_modules()):
            parent, _, last = name.rpartition(".")
            if last not in self.layers or not isinstance(module, nn.Linear):
                continue
            if getattr(model.get_submodule(parent), "q_bias", None) is not None:
                raise ModelError(
                    "This transformer uses the weights of qkv directly, where LoRA has no effect: "
                    "choose other layers, such as [proj, fc1, fc2], or AdaptFormer."
                )
            model.set_submodule(name, LoRALinear(module, self.rank, self.alpha))
            adapted += 1
        if not adapted:
            raise ModelError(
                f"The model has no linear layers named {', '.join(self.layers)}: choose a "
                "transformer, or other layers of LoRA."
            )


class LoRALinear(nn.Module):
    """A linear layer with a low-rank update: W x + b + (alpha / r) B A x.

    A starts from random numbers as in the published code, B from 0.

    Args:
        linear: Layer with the weight W and the bias b.
        rank: Rank r of the update.
        alpha: Scale of the update.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * (x @ self.a.T @ self.b.T)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The linear layer with the update added to its weight."""
        self.linear.weight += self.scale * self.b @ self.a
        return self.linear


class AdaptFormer(Adapter):
    """A bottleneck beside the MLP of each block (https://arxiv.org/abs/2205.13535, eq. 3 and 4).

        x = x' + MLP(LN(x')) + s ReLU(LN(x') W_down) W_up

    As in the paper, MLP and bottleneck share the layer norm; in the code of LIFT the bottleneck
    has one of its own. If a block scales the output of its MLP (LayerScale) or drops it, the
    same applies to the bottleneck.

    Args:
        bottleneck: Width of the bottleneck, at least 1; 64 in the paper.
        scale: Factor s of the bottleneck, 0.1 in the paper; None learns one for each block, which
            starts from 1, as in the code of LIFT.
    """

    def __init__(self, bottleneck: int = 64, scale: float | None = 0.1) -> None:
        self.bottleneck = bottleneck
        self.scale = scale

    def insert(self, model: nn.Module) -> None:
        perceptrons = {
            name: module
            for name, module in model.named_modules()
            if name.rpartition(".")[2] == "mlp"
            and isinstance(getattr(module, "fc2", None), nn.Linear)
        }
        if not perceptrons:
            raise ModelError("The model has no blocks with an MLP: choose a transformer.")
        for name, perceptron in perceptrons.items():
            model.set_submodule(name, AdaptedMLP(perceptron, self.bottleneck, self.scale))


class AdaptedMLP(nn.Module):
    """The MLP of a transformer's block, with a bottleneck beside it.

    The bottleneck's last layer starts from 0.

    Args:
        mlp: MLP of timm, from (..., C) to (..., C).
        bottleneck: Width of the bottleneck.
        scale: Factor of the bottleneck; None is learned.
    """

    def __init__(self, mlp: Any, bottleneck: int, scale: float | None) -> None:
        super().__init__()
        self.mlp = mlp
        channels = mlp.fc2.out_features
        self.down = nn.Linear(channels, bottleneck)
        self.up = nn.Linear(bottleneck, channels)
        self.scale = nn.Parameter(torch.ones(1)) if scale is None else scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zeros in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zeros)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + self.scale * self.up(self.down(x).relu())


class AdaptedNetwork(TimmNetwork):
    """A frozen transformer of timm with trained adapters and a trained classifier.

    At first its features are those of the frozen transformer.

    Args:
        name: timm's name of a vision transformer.
        adapter: Adapters that are inserted.
        cosine_scale: Scale of a cosine classifier, which replaces the linear one; 25 in the code of
            LIFT. None keeps the linear classifier.
        options: As for :class:`~lightning_modules.networks.TimmNetwork`.
        size: Height and width of the images in pixels, to which timm resamples the position
            embedding; the command line takes it from the data.
        **kwargs: As for :class:`~lightning_modules.networks.TimmNetwork`.

    Shape:
        Images (B, 3, size, size) in [0, 1] to logits (B, num_classes).

    Raises:
        ModelError: The model is not a vision transformer, or has no layers for the adapter.
    """

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        cosine_scale: float | None = None,
        options: Mapping[str, Any] | None = None,
        size: int = 224,
        **kwargs: Any,
    ) -> None:
        options = {"img_size": size} | dict(options or {})
        try:
            super().__init__(name, options=options, size=size, **kwargs)
        except TypeError as error:
            raise ModelError(
                f"{name} is not a supported vision transformer ({error}): choose one, such as "
                "vit_small_patch16_224."
            ) from error
        self.model.requires_grad_(False)
        adapter.insert(self.model)
        classifier = self.model.get_classifier()
        if cosine_scale is not None:
            classes, width = classifier.weight.shape
            classifier = CosineClassifier(width, classes, cosine_scale)
            self.model.set_submodule(self.model.pretrained_cfg["classifier"], classifier)
        classifier.requires_grad_(True)

    def merge(self) -> None:
        """Add the updates of LoRA to the weights; the outputs stay the same."""
        for name, module in list(self.model.named_modules()):
            if isinstance(module, LoRALinear):
                self.model.set_submodule(name, module.merged())
