"""Where a network looks: Grad-CAM, attention rollout, and the maps of attention modules."""

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
    """What ``model`` says of images, and the maps of where it looked for that.

    - A module with ``keep_attention`` shows the maps that it keeps, CBAM's ``spatial`` for one;
    - a vision transformer shows attention rollout (https://arxiv.org/abs/2005.00928, eq. 1);
    - a hybrid one Grad-CAM (https://arxiv.org/abs/1610.02391, eq. 1 and 2) of the likeliest class
      at the tokens that enter its last block;
    - any other network with ``features`` Grad-CAM at these.

    Neither gradients of parameters nor random numbers are touched. Works within
    ``torch.inference_mode``.

    Args:
        model: Images to logits, in evaluation mode.
        images: (B, 3, H, W).

    Returns:
        Logits (B, K), and name to map (B, h, w), at least 0; the last one is of the diagnosis.

    Raises:
        RunError: The model has nothing of the kind.
    """
    with torch.inference_mode(False), torch.no_grad():
        images = images.clone()  # one from inference mode has no gradient behind it
        if (kept := _own(model, images)) is not None:
            return kept
        if (vit := _transformer(model)) is not None:
            if hasattr(vit.patch_embed, "backbone"):
                with _replacing_output(vit.blocks[-1].norm1) as leaves:
                    logits = model(images)
                    heat = grad_cam(leaves[0], logits, vit, images.shape[2:])
                    return logits.detach(), {"Grad-CAM": heat}
            return _rollout(model, vit, images)
        with _replacing_features(model) as leaves:
            logits = model(images)
            if not leaves:
                raise RunError(f"{type(model).__name__} classifies without its features.")
            return logits.detach(), {"Grad-CAM": grad_cam(leaves[0], logits)}


def grad_cam(
    features: Tensor, logits: Tensor, vit: Any = None, shape: Sequence[int] = ()
) -> Tensor:
    """ReLU(sum_k a_k A_k), with a_k the mean over positions of the gradient of the largest logit.

    Args:
        features: A (B, C, h, w), or tokens (B, L, C), of which ``logits`` are a function.
        logits: (B, K).
        vit: The transformer whose tokens these are: some of them are no places.
        shape: Height and width of the images that the transformer saw.

    Returns:
        (B, h, w).
    """
    (gradient,) = torch.autograd.grad(logits.amax(1).sum(), features)
    maps, gradient = features.detach().float(), gradient.float()
    if features.ndim == 3:
        maps, gradient = _places(maps, vit, shape), _places(gradient, vit, shape)
    return torch.einsum("bk,bkhw->bhw", gradient.mean((2, 3)), maps).relu()


def rollout(attention: list[Tensor]) -> Tensor:
    """Attention of the outputs to the inputs: the product of (A + I) / 2, later layers first.

    Args:
        attention: A (B, heads, L, L) of each layer, rows summing to 1; heads are averaged.

    Returns:
        (B, L, L), rows summing to 1.
    """
    identity = torch.eye(attention[0].shape[-1], device=attention[0].device)
    total = identity
    for layer in attention:
        total = (layer.float().mean(1) + identity) / 2 @ total
    return total


def inside(heat: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """How much of a map is in the lesion.

    Args:
        heat: (B, h, w), at least 0.
        mask: (B, H, W) in [0, 1].

    Returns:
        (B,) each: whether the middle of its highest cell is inside (the pointing game,
        https://arxiv.org/abs/1608.00507, without the tolerance of 15 pixels), and the share of its
        sum, once it is enlarged, that is (https://arxiv.org/abs/1910.01279, section 4.3). A map
        that is 0 everywhere has neither, which is NaN.
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
    """Maps (B, h, w) to (B, H, W)."""
    return F.interpolate(heat[:, None].float(), tuple(shape), mode="bilinear").squeeze(1)


def _own(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]] | None:
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
    """A vision transformer of timm's in a model, if its attention can be seen."""
    for module in model.modules():
        blocks = getattr(module, "blocks", None)
        if isinstance(blocks, nn.Sequential) and hasattr(module, "num_prefix_tokens"):
            attentions = [getattr(block, "attn", None) for block in blocks]
            if all(hasattr(a, "fused_attn") and hasattr(a, "attn_drop") for a in attentions):
                return module
    return None


def _rollout(model: nn.Module, vit: Any, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    seen: list[Tensor] = []
    layers = [block.attn for block in vit.blocks]
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(setattr, layer, "fused_attn", layer.fused_attn)
            layer.fused_attn = False  # which computes the weights, and hands them to the dropout
            hook = layer.attn_drop.register_forward_hook(lambda _, __, out: seen.append(out))
            stack.callback(hook.remove)
        logits = model(images)
    total = rollout(seen[: len(layers)])  # an ensemble may ask several times
    pooled = total[:, 0] if vit.global_pool == "token" else total.mean(1)
    return logits, {"rollout": _places(pooled[..., None], vit, images.shape[2:]).squeeze(1)}


def _places(tokens: Tensor, vit: Any, shape: Sequence[int]) -> Tensor:
    """Tokens (B, L, C) to their places in images of a shape (H, W): (B, C, h, w)."""
    patches = tokens if vit is None else tokens[:, vit.num_prefix_tokens :]
    return patches.transpose(1, 2).unflatten(2, _grid(patches.shape[1], vit, shape))


def _grid(places: int, vit: Any, shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the tokens of this image, which may not be of the size built for."""
    side = math.isqrt(places)
    known = [(side, side)]
    if vit is not None:
        embed = vit.patch_embed
        known.insert(0, embed.grid_size or (0, 0))
        if hasattr(embed, "dynamic_feat_size"):
            known.insert(0, embed.dynamic_feat_size(tuple(shape)))
    for rows, columns in known:
        if rows * columns == places:
            return rows, columns
    raise RunError(f"{places} tokens are no square of places: no map can be drawn.")


@contextmanager
def _replacing_output(module: nn.Module) -> Iterator[list[Tensor]]:
    """Puts a leaf of the graph in the place of what a module gives, and shows it."""
    leaves: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, __, output: _leaf(output, leaves))
    try:
        yield leaves
    finally:
        hook.remove()


@contextmanager
def _replacing_features(model: nn.Module) -> Iterator[list[Tensor]]:
    """The same of the method ``features``, which no hook can reach."""
    methods = ((m, getattr(m, "features", None)) for m in model.modules())
    found = [(m, f) for m, f in methods if callable(f) and not isinstance(f, nn.Module)]
    if not found:
        raise RunError(f"{type(model).__name__} has no feature map: no saliency can be drawn.")
    (owner, features), leaves = found[0], []  # type: ignore[var-annotated]
    owner.features = lambda images: _leaf(features(images), leaves)  # type: ignore[assignment]
    try:
        yield leaves
    finally:
        del owner.features


def _leaf(output: Tensor, leaves: list[Tensor]) -> Tensor:
    leaves.append(output.detach().requires_grad_())
    torch.set_grad_enabled(True)  # from here on; what leads here needs no graph
    return leaves[-1]
