"""Aggregation of experts by self-supervision: SADE's weights for given images, without labels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def prediction_stability(views: Tensor, weight: Tensor) -> Tensor:
    """Mean cosine similarity of the predictions for two views of each image, in [0, 1].

    The prediction is the softmax of the weighted sum of the experts' logits
    (https://arxiv.org/abs/2107.09249, section 4.2).

    Args:
        views: Logits (2, E, N, K) of two views of N images by E experts.
        weight: Weights (E,) of the experts.

    Examples:
        >>> views = torch.tensor([[[[9.0, 0.0]], [[9.0, 0.0]]], [[[9.0, 0.0]], [[0.0, 9.0]]]])
        >>> prediction_stability(views, torch.tensor([1.0, 0.0]))  # the first expert is stable
        tensor(1.)
    """
    first, second = (weight[:, None, None] * views).sum(1).softmax(-1)
    return F.cosine_similarity(first, second, dim=1, eps=1e-6).mean()


def stable_weights(
    views: Tensor,
    steps: int = 395,
    batch_size: int = 128,
    lr: float = 0.1,
    least: float = 0.05,
) -> Tensor:
    """Weights of the experts that maximize :func:`prediction_stability`, from equal weights.

    SADE's test-time aggregation (https://arxiv.org/abs/2107.09249, eq. 4): stochastic gradient
    ascent on the logarithms of the weights, with the published optimizer. It ends early when a
    weight falls below ``least``, which is checked after each pass over the images. The published
    code draws other views in each pass; here they are given. The result is a function of the
    arguments alone.

    Args:
        views: Logits (2, E, N, K) of two views of N images by E experts.
        steps: Least number of steps. The default are the five epochs of the published code on the
            10,000 test images of CIFAR-100; epochs of a smaller test set have too few steps for
            the weights to move.
        batch_size: Images per step.
        lr: Learning rate; the published code has 0.1 for CIFAR-100 and 0.025 for ImageNet-LT.
        least: Weight at which the ascent ends, in [0, 1 / E).

    Returns:
        Weights (E,), which sum to 1.
    """
    views = views.double().cpu()
    logarithm = torch.zeros(views.shape[1], dtype=views.dtype, requires_grad=True)
    optimizer = torch.optim.SGD(
        [logarithm], lr, momentum=0.9, nesterov=True, weight_decay=5e-4, maximize=True
    )
    order = torch.Generator().manual_seed(0)
    images = views.shape[2]
    for _ in range(math.ceil(steps / math.ceil(images / batch_size))):
        for rows in torch.randperm(images, generator=order).split(batch_size):
            optimizer.zero_grad()
            prediction_stability(views[:, :, rows], logarithm.softmax(0)).backward()
            optimizer.step()
        if logarithm.softmax(0).min() < least:
            break
    return logarithm.softmax(0).detach().float()
