"""CARE: attention to the lesion, for rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.classifier import Classifier
from lightning_modules.errors import ModelError
from lightning_modules.losses.distributed import global_sum

RARE = ("akiec", "df", "vasc")
BATCH = 96  # images that the published code sums over, with which its alpha goes
LEAST = 1e-3  # cells of the grid: about a pixel of a network with stride 32


class CARE(Classifier):
    """Class attention to regions of lesion (https://proceedings.mlr.press/v102/zhuang19a.html).

    The total is (1 - alpha) criterion + alpha L_a. L_a asks that F, the normalised Grad-CAM of the
    true class, is high inside the lesion, up to tau, and low outside:

        L_a = L_in + lambda L_out,   L_in = -min(sum(M_in F) / sum(M_in), tau),
                                     L_out = sum(M_out F) / sum(M_out)

    In the published code (https://github.com/JiaxinZhuang/CARE) the gradients of the true-class
    logits, wanted for Grad-CAM, also stay in the update, which lowers those logits; here they do
    not. It enlarges F to the image; we average the mask over the cells of F.

    That code sums L_a over the rare images of 96, and averages the criterion over all 96. In
    units of 1 / 96, L_a of a rare image weighs 96 alpha = 0.96 and its criterion 1 - alpha = 0.99.
    Here it is so for any batch size B: the sum is multiplied by 96 / B. Of HAM10000's images 5.8 %
    are rare, 5.6 of 96; balanced sampling shows 3 rare images in 7, 41 of 96, so attention weighs
    seven times as much in the loss of a batch, as it would in the published code. There too L_a
    and criterion of an image keep their weights to each other, so alpha is left as it is.

    The paper trains the network plainly first: give that run to the callback ``WarmStart``.

    Args:
        *args: As for :class:`Classifier`. ``network`` is ``classify`` after ``features``, which
            gives (B, C, h, w); ``mix`` must be left out.
        alpha: Weight of the attention; 0 gives plain training.
        tau: Attention inside the lesion that is enough, in [0, 1].
        outside_weight: The paper's lambda.
        boxes: Lesions are the bounding boxes of their masks, as in the paper, or the masks.
        classes: Whose images are attended to: the rare ones, as in the paper, or ``all``.
        reduction: What becomes of L_a of those images. ``batch``: their sum times 96 / B, as above.
            ``sum``: their sum, for which alpha must go with the batch size. ``mean``: their mean,
            which is as large in a batch with one rare image as with many.
        **kwargs: As for :class:`Classifier`.
    """

    mixes = False

    attended: Tensor

    def __init__(
        self,
        *args: Any,
        alpha: float = 0.01,
        tau: float = 0.5,
        outside_weight: float = 1.0,
        boxes: bool = True,
        classes: Sequence[str] | Literal["all"] = RARE,
        reduction: Literal["batch", "sum", "mean"] = "batch",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.alpha, self.tau, self.outside_weight = alpha, tau, outside_weight
        self.boxes, self.reduction = boxes, reduction
        names = self.metrics["val"].class_names
        if classes != "all" and (unknown := set(classes) - set(names)):
            raise ModelError(f"CARE cannot attend to {sorted(unknown)}: classes are {names}.")
        attended = torch.tensor([classes == "all" or name in classes for name in names])
        self.register_buffer("attended", attended, persistent=False)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        network: Any = self.network
        features = network.features(batch["image"])
        logits = network.classify(features)
        classification = self.criterion(logits, batch["label"])
        attention = self.attention(features, logits, batch)
        loss = (1 - self.alpha) * classification + self.alpha * attention
        self.log_dict({"train/loss": loss, "train/attention": attention})
        return loss

    def attention(self, features: Tensor, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """L_a of the global batch, from A (B, C, h, w) and z (B, K)."""
        if "mask" not in batch:
            raise ModelError("CARE needs the masks of the lesions: set data.mask.")
        if features.ndim != 4:
            raise ModelError("CARE needs feature maps (B, C, h, w): take a convolutional network.")
        lesion = bounding_boxes(batch["mask"]) if self.boxes else batch["mask"]
        # A half-precision sum over positions or channels would drown small differences.
        with torch.autocast(features.device.type, enabled=False):
            heat = normalise(grad_cam(features, logits, batch["label"]))
            height, width = heat.shape[1:]
            inside = F.adaptive_avg_pool2d(lesion, (height, width)).squeeze(1)
            each = attention_loss(heat, inside, self.tau, self.outside_weight)
        chosen = self.attended[batch["label"]] & (inside.sum((1, 2)) > LEAST)
        counted = torch.stack([each.where(chosen, 0), chosen.to(each.dtype), torch.ones_like(each)])
        total, attended, images = global_sum(counted.sum(1))
        factors = {"batch": BATCH / images, "sum": 1.0, "mean": 1 / attended.clamp(min=1)}
        return total * factors[self.reduction]


def grad_cam(features: Tensor, logits: Tensor, label: Tensor) -> Tensor:
    """Grad-CAM of the true class (https://arxiv.org/abs/1610.02391, eq. 1 and 2), without ReLU.

    sum_k a_k A_k with a_k the sum over positions of the gradient of z_y, a constant: CARE has no
    second derivatives. For a head of average pooling and a linear layer, a_k is W_yk and this is
    the CAM; the gradient then costs no more than looking up W.

    Args:
        features: A (B, C, h, w), of which ``logits`` are a function.
        logits: z (B, K); their graph is kept.
        label: y (B,).

    Returns:
        (B, h, w), float32.
    """
    score = logits.gather(1, label[:, None])
    # Times hw, which pooling divides by, because half precision has no numbers that small.
    scale = torch.full_like(score, features[0, 0].numel())
    (gradient,) = torch.autograd.grad(score, features, scale, retain_graph=True)
    return torch.einsum("bk,bkhw->bhw", gradient.float().mean((2, 3)), features.float())


def normalise(cam: Tensor) -> Tensor:
    """F: each map (B, h, w) shifted and scaled to reach from 0 to 1; a constant one is 0."""
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    span = high - low
    # What is constant but for rounding has no shape, and 1 / span would be its gradient.
    floor = 1e-5 * torch.maximum(low.abs(), high.abs()) + torch.finfo(cam.dtype).tiny
    return ((cam - low) / torch.maximum(span, floor)).where(span > floor, 0)


def attention_loss(heat: Tensor, inside: Tensor, tau: float, outside_weight: float) -> Tensor:
    """L_in + lambda L_out of each image (B,).

    Args:
        heat: F (B, h, w) in [0, 1].
        inside: M_in (B, h, w), the share of each cell that is lesion. Without any outside, L_out
            is 0.
        tau: Attention inside the lesion that is enough.
        outside_weight: lambda.
    """
    return _mean(heat, 1 - inside) * outside_weight - _mean(heat, inside).clamp(max=tau)


def _mean(heat: Tensor, weight: Tensor) -> Tensor:
    return (weight * heat).sum((1, 2)) / weight.sum((1, 2)).clamp(min=LEAST)


def bounding_boxes(mask: Tensor) -> Tensor:
    """Masks (B, 1, H, W) in [0, 1] to their upright bounding boxes, 0 or 1."""
    lesion = mask >= 0.5
    rows, columns = _between(lesion.any(3)), _between(lesion.any(2))  # (B, 1, H), (B, 1, W)
    return rows[..., :, None] * columns[..., None, :]


def _between(hit: Tensor) -> Tensor:
    """1 from the first to the last hit along the last dimension, 0 elsewhere."""
    hit = hit.float()
    return hit.cummax(-1).values * hit.flip(-1).cummax(-1).values.flip(-1)
