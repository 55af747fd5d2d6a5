"""Probes: a trained head on a frozen encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from lightning_modules.errors import ModelError
from lightning_modules.networks.heads import Head, LinearHead
from lightning_modules.networks.network import VectorNetwork
from lightning_modules.networks.timm_network import TimmNetwork

RGB = 3


class Probe(VectorNetwork):
    """A head on a frozen encoder, optionally with the encoder's last stages trained as well.

    The frozen part is in evaluation mode and has no gradients. With ``data.encoded`` its outputs
    are computed once and cached. Checkpoints do not hold its weights but their SHA-256, which is
    compared when a checkpoint is loaded: the encoder's own ``weights`` or ``pretrained`` must be
    the ones of the training.

    Args:
        encoder: Pretrained network; its classifier is removed.
        head: Factory of the head from the size of the vectors and the number of classes; None is
            :class:`~lightning_modules.networks.heads.LinearHead`.
        trained_stages: Number of the encoder's last stages that are trained, from their pretrained
            weights; for EfficientNets. 0 trains the head alone.
        num_classes: Number of classes K; the command line takes it from the data.

    Shape:
        Images (B, 3, H, W) in [0, 1], or what :meth:`encode` makes of them, to logits (B, K).

    Raises:
        ModelError: The encoder has no such stages.
    """

    digest: Tensor

    def __init__(
        self,
        encoder: TimmNetwork,
        head: Callable[[int, int], Head] | None = None,
        trained_stages: int = 0,
        num_classes: int = 7,
    ) -> None:
        super().__init__()
        width = encoder.width
        encoder.model.reset_classifier(0)
        self.stages = cut(encoder.model, trained_stages) if trained_stages else nn.Identity()
        self.trained_stages = trained_stages
        self.encoder = encoder.requires_grad_(False).eval()
        self.head = (head or LinearHead)(width, num_classes)
        digest = torch.frombuffer(bytearray(self._hash()), dtype=torch.uint8)
        self.register_buffer("digest", digest)
        self.register_state_dict_post_hook(_leave_out_encoder)
        self.register_load_state_dict_pre_hook(_bring_own_encoder)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to the outputs of the frozen stages.

        These are vectors (B, C), or feature maps (B, C, h, w) if stages are trained.
        """
        return self.encoder.features(images) if self.trained_stages else self.encoder.encode(images)

    def vectors(self, images: Tensor) -> Tensor:
        """Images, or outputs of :meth:`encode`, to the vectors (B, C) of the head."""
        is_encoded = images.ndim != 4 or images.shape[1] != RGB
        encoded = images.to(self.encoder.mean.dtype) if is_encoded else self.encode(images)
        return self.stages(encoded)

    @property
    def classifier(self) -> nn.Module:
        return self.head.linear if isinstance(self.head, LinearHead) else self.head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.vectors(images))

    @cached_property
    def encoder_key(self) -> str:
        """Text that differs between encoders whose outputs differ."""
        return f"{self.encoder}\n{self.digest.numpy(force=True).tobytes().hex()}"

    def _hash(self) -> bytes:
        """SHA-256 of the weights of the frozen part and of the normalization of its input."""
        sha = hashlib.sha256()
        normalization = {"mean": self.encoder.mean, "std": self.encoder.std}
        for name, value in (normalization | self.encoder.state_dict()).items():
            sha.update(name.encode())
            sha.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return sha.digest()


def cut(model: Any, stages: int) -> nn.Sequential:
    """Remove the last stages of an EfficientNet, with all that follows them.

    Args:
        model: Network of timm.
        stages: Number of stages to remove.

    Returns:
        The removed layers: feature maps (B, C, h, w) to vectors (B, C).

    Raises:
        ModelError: The network is no EfficientNet, or has no more stages than that.
    """
    if not isinstance(model, EfficientNet):
        raise ModelError(
            f"A {type(model).__name__} has no stages to train separately: set the encoder's name "
            "to an EfficientNet, or model.network.trained_stages to 0."
        )
    if not 0 < stages < len(model.blocks):
        raise ModelError(
            f"trained_stages={stages} is out of range: set 0 to {len(model.blocks) - 1}."
        )
    kept, removed = model.blocks[:-stages], model.blocks[-stages:]
    top = nn.Sequential(removed, model.conv_head, model.bn2, model.global_pool)
    model.blocks = kept
    model.conv_head = nn.Identity()
    model.bn2 = nn.Identity()
    return top


def _leave_out_encoder(probe: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}encoder.")]:
        del state[key]


def _bring_own_encoder(probe: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(probe, Probe)
    saved = state.get(f"{prefix}digest")
    if saved is not None and not torch.equal(saved.cpu(), probe.digest.cpu()):
        raise ModelError(
            "The weights of the encoder are not those that this probe was trained on, whose "
            f"SHA-256 begins with {saved.numpy(force=True).tobytes().hex()[:12]}: set the "
            "encoder's name, pretrained and weights to those of the training."
        )
    encoder = probe.encoder.state_dict()
    state.update({f"{prefix}encoder.{name}": value for name, value in encoder.items()})
