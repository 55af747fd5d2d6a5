"""Attention maps of a network: Grad-CAM, attention rollout, and maps of attention modules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from callbacks.errors import RunError


def attention_maps(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of images, and maps of where the model looks in them.

    - A model with an attention module (``keep_attention``), such as CBAM: the maps of that module.
    - A vision transformer: attention rollout (https://arxiv.org/abs/2005.00928, eq. 1).
    - A hybrid vision transformer: Grad-CAM (https://arxiv.org/abs/1610.02391, eq. 1 and 2) of the
      most likely class at the tokens that enter the last block.
    - Any other network with ``features``: Grad-CAM of the most likely class at these.

    Leaves the gradients of parameters and the random numbers unchanged. Works within
    ``torch.inference_mode``.

    Args:
        model: Model that maps images to logits, in evaluation mode.
        images: Images (B, 3, H, W).

    Returns:
        Logits (B, K), and maps (B, h, w) by name, at least 0; the last one is of the diagnosis.

    Raises:
        RunError: The model has neither attention nor a feature map.
    """
    with torch.inference_mode(False), torch.no_grad():
        images = images.clone()  # inference tensors cannot enter an autograd graph
        if (kept := _kept_attention(model, images)) is not None:
            return kept
        if (vit := _transformer(model)) is not None:
            if hasattr(_patch_embedding(vit), "backbone"):
                with _tracing_output(vit.blocks[-1].norm1) as leaves:
                    logits = model(images)
                    heat = grad_cam(leaves[0], logits, vit, images.shape[2:])
                    return logits.detach(), {"Grad-CAM": heat}
            return _rollout(model, vit, images)
        with _tracing_features(model) as leaves:
            logits = model(images)
            if not leaves:
                raise RunError(
                    f"{type(model).__name__} does not use its features: no map is drawn."
                )
            return logits.detach(), {"Grad-CAM": grad_cam(leaves[0], logits)}


def grad_cam(
    features: Tensor, logits: Tensor, vit: Any = None, shape: Sequence[int] = ()
) -> Tensor:
    """Grad-CAM: ReLU(sum_k a_k A_k), a_k being the mean gradient of the largest logit.

    Args:
        features: Feature map A (B, C, h, w), or tokens (B, L, C), from which ``logits`` follow.
        logits: Logits (B, K).
        vit: Transformer of the tokens, which tells prefix tokens from patches; None for a map.
        shape: Height and width of the transformer's images.

    Returns:
        Maps (B, h, w), at least 0.
    """
    (gradient,) = torch.autograd.grad(logits.amax(1).sum(), features)
    maps, gradient = features.detach().float(), gradient.float()
    if features.ndim == 3:
        maps, gradient = _patches(maps, vit, shape), _patches(gradient, vit, shape)
    return torch.einsum("bk,bkhw->bhw", gradient.mean((2, 3)), maps).relu()


def rollout(attention: list[Tensor]) -> Tensor:
    """Attention rollout from outputs to inputs: the product of (A + I) / 2, last layer first.

    Args:
        attention: Attention A (B, heads, L, L) of each layer, whose rows sum to 1; heads are
            averaged.

    Returns:
        Attention (B, L, L), whose rows sum to 1.
    """
    identity = torch.eye(attention[0].shape[-1], device=attention[0].device)
    total = identity
    for layer in attention:
        total = (layer.float().mean(1) + identity) / 2 @ total
    return total


def inside(heat: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pointing game and energy of attention maps with respect to the lesion.

    Args:
        heat: Maps (B, h, w), at least 0.
        mask: Masks of the lesions (B, H, W) in [0, 1].

    Returns:
        Pointing (B,), 1 if the middle of a map's highest cell is in the lesion
        (https://arxiv.org/abs/1608.00507, without the tolerance of 15 pixels), else 0; and energy
        (B,), the share of the enlarged map's sum in the lesion (https://arxiv.org/abs/1910.01279,
        section 4.3). Both are NaN if a map is 0 everywhere.
    """
    (h, w), (height, width) = heat.shape[1:], mask.shape[1:]
    highest = heat.flatten(1).argmax(1)
    rows, columns = highest // w, highest % w
    rows, columns = (2 * rows + 1) * height // (2 * h), (2 * columns + 1) * width // (2 * w)
    hit = (mask[torch.arange(len(mask)), rows, columns] >= 0.5).float()
    heat = enlarged(heat, mask.shape[1:])
    total = heat.sum((1, 2))
    energy = (heat * mask).sum((1, 2)) / total
    return hit.where(total > 0, torch.nan), energy.where(total > 0, torch.nan)


def enlarged(heat: Tensor, shape: torch.Size) -> Tensor:
    """Enlarge maps (B, h, w) to (B, H, W), bilinearly."""
    return F.interpolate(heat[:, None].float(), tuple(shape), mode="bilinear").squeeze(1)


def _kept_attention(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]] | None:
    keepers = (module for module in model.modules() if hasattr(module, "keep_attention"))
    keeper: Any = next(keepers, None)
    if keeper is None:
        return None
    keeper.keep_attention = True
    try:
        logits = model(images)
        return (logits, keeper.attention) if keeper.attention else None
    finally:
        keeper.keep_attention, keeper.attention = False, {}


def _transformer(model: nn.Module) -> Any:
    """The vision transformer of timm in a model, if its attention can be recorded, or None."""
    for module in model.modules():
        blocks: Any = getattr(module, "blocks", None)
        listed = isinstance(blocks, nn.Sequential | nn.ModuleList)  # the latter in BEiT and DINOv3
        if listed and hasattr(module, "num_prefix_tokens") and _patch_embedding(module):
            attentions = [getattr(block, "attn", None) for block in blocks]
            if all(hasattr(a, "fused_attn") and hasattr(a, "attn_drop") for a in attentions):
                return module
    return None


def _patch_embedding(vit: Any) -> Any:
    """The layer that cuts images into patches, or None."""
    return getattr(vit, "patch_embed", None) or getattr(vit, "embeds", None)  # the latter in NaFlex


def _rollout(model: nn.Module, vit: Any, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    attention: list[Tensor] = []
    layers = [block.attn for block in vit.blocks]
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(setattr, layer, "fused_attn", layer.fused_attn)
            layer.fused_attn = False  # the unfused layer passes its weights to attn_drop
            hook = layer.attn_drop.register_forward_hook(lambda _, __, out: attention.append(out))
            stack.callback(hook.remove)
        logits = model(images)
    total = rollout(attention[: len(layers)])  # an ensemble may run several times
    pooled = total[:, 0] if vit.global_pool == "token" else total.mean(1)
    return logits, {"rollout": _patches(pooled[..., None], vit, images.shape[2:]).squeeze(1)}


def _patches(tokens: Tensor, vit: Any, shape: Sequence[int]) -> Tensor:
    """Arrange patch tokens (B, L, C) as in images of a shape (H, W): (B, C, h, w)."""
    patches = tokens if vit is None else tokens[:, vit.num_prefix_tokens :]
    return patches.transpose(1, 2).unflatten(2, _grid(patches.shape[1], vit, shape))


def _grid(patches: int, vit: Any, shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of patches, for images that may differ in size from the transformer's."""
    side = math.isqrt(patches)
    candidates = [(side, side)]
    if vit is not None:
        embed = _patch_embedding(vit)
        candidates.insert(0, getattr(embed, "grid_size", None) or (0, 0))
        if hasattr(embed, "dynamic_feat_size"):
            candidates.insert(0, embed.dynamic_feat_size(tuple(shape)))
    for rows, columns in candidates:
        if rows * columns == patches:
            return rows, columns
    raise RunError(f"{patches} patches do not form a grid: no map is drawn.")


@contextmanager
def _tracing_output(module: nn.Module) -> Iterator[list[Tensor]]:
    """Start the autograd graph at the output of a module; yields the outputs."""
    leaves: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, __, output: _start_graph(output, leaves))
    try:
        yield leaves
    finally:
        hook.remove()


@contextmanager
def _tracing_features(model: nn.Module) -> Iterator[list[Tensor]]:
    """Start the autograd graph at the output of the method ``features``; yields the outputs."""
    owner = next(filter(_has_features, model.modules()), None)
    if owner is None:
        raise RunError(f"{type(model).__name__} has no feature map: no attention map is drawn.")
    features: Any = owner.features
    leaves: list[Tensor] = []

    def traced_features(images: Tensor) -> Tensor:
        return _start_graph(features(images), leaves)

    vars(owner)["features"] = traced_features  # shadows the method, which has no hooks
    try:
        yield leaves
    finally:
        del vars(owner)["features"]


def _has_features(module: nn.Module) -> bool:
    """Whether ``features`` is a method, rather than a submodule as in torchvision."""
    features = getattr(module, "features", None)
    return callable(features) and not isinstance(features, nn.Module)


def _start_graph(output: Tensor, leaves: list[Tensor]) -> Tensor:
    """Make an output a leaf of the autograd graph, and record gradients from there on.

    The layers before it need no graph. :func:`attention_maps` restores the gradient mode.
    """
    leaf = output.detach().requires_grad_()
    leaves.append(leaf)
    torch.set_grad_enabled(True)
    return leaf
