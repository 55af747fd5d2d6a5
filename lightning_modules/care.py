"""CARE: classifiers that attend to the lesions of rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.batches import Batch
from lightning_modules.classifier import DiagnosticLearner
from lightning_modules.errors import ModelError
from lightning_modules.losses.criterion import Criterion
from lightning_modules.losses.distributed import global_sum
from lightning_modules.networks.timm_network import TimmNetwork

PUBLISHED_BATCH = 96  # batch size of the published code, which its alpha is for
MIN_AREA = 1e-3  # in cells of the grid; about one pixel for a network with stride 32


class CARE(DiagnosticLearner):
    """Class attention to regions of lesion (https://proceedings.mlr.press/v102/zhuang19a.html).

    The loss is (1 - alpha) criterion + alpha L_a. L_a is low if F, the normalized Grad-CAM of the
    true class, is high inside the lesion, up to tau, and low outside:

        L_a = L_in + lambda L_out,   L_in = -min(sum(M_in F) / sum(M_in), tau),
                                     L_out = sum(M_out F) / sum(M_out)

    In the published code (https://github.com/JiaxinZhuang/CARE) the gradients of the true-class
    logits, which Grad-CAM needs, also enter the update and lower those logits; here they do not.
    That code resizes F to the image; this module averages the mask over the cells of F.

    The published code sums L_a over the rare images of a batch of 96 and averages the criterion
    over all 96. In units of 1 / 96, L_a of a rare image has the weight 96 alpha = 0.96 and its
    criterion 1 - alpha = 0.99. This module keeps these weights for any batch size B by multiplying
    the sum by 96 / B. Of HAM10000's images 5.8 % are rare, or 5.6 of 96; with balanced sampling 3
    in 7 are rare, or 41 of 96, so that L_a has seven times the weight in the loss of a batch, as
    in the published code.

    The paper starts from a network trained with the criterion only: set the callback ``WarmStart``
    to such a run.

    Args:
        network: Convolutional network with feature maps (B, C, h, w).
        criterion: Loss of logits (B, K) for labels (B,).
        *args: As for :class:`~lightning_modules.learner.Learner`.
        alpha: Weight of L_a, in [0, 1]; 0 only trains the criterion.
        tau: Attention inside the lesion above which L_in no longer decreases, in [0, 1].
        outside_weight: Weight lambda of L_out, at least 0.
        boxes: Whether a lesion is the bounding box of its mask, as in the paper, or the mask.
        classes: Classes whose images have the loss L_a: ``few``, the data set's group of rare
            classes, as in the paper; ``all``; or a list.
        reduction: Reduction of L_a over these images. ``batch``: sum times 96 / B, see above.
            ``sum``: sum, for which alpha must be adapted to the batch size. ``mean``: mean, which
            has the same weight in a batch with one rare image as with many.
        **kwargs: As for :class:`~lightning_modules.classifier.DiagnosticLearner`.

    Raises:
        ModelError: A class is unknown, the batch has no masks, or the network no feature maps.
    """

    network: TimmNetwork
    attended: Tensor

    def __init__(
        self,
        network: TimmNetwork,
        criterion: Criterion | nn.CrossEntropyLoss,
        *args: Any,
        alpha: float = 0.01,
        tau: float = 0.5,
        outside_weight: float = 1.0,
        boxes: bool = True,
        classes: Sequence[str] | Literal["all", "few"] = "few",
        reduction: Literal["batch", "sum", "mean"] = "batch",
        **kwargs: Any,
    ) -> None:
        super().__init__(network, *args, **kwargs)
        self.criterion = criterion
        self.alpha = alpha
        self.tau = tau
        self.outside_weight = outside_weight
        self.boxes = boxes
        self.reduction = reduction
        names = self.class_names
        if classes == "few" and not self.shots:
            raise ModelError(
                "The data set has no group of rare classes: list classes by model.classes, or "
                "describe `shots` in the data set's YAML file."
            )
        chosen = {"all": names, "few": self.shots.get("few", ())}.get(str(classes), classes)
        if unknown := set(chosen) - set(names):
            raise ModelError(
                f"model.classes names {sorted(unknown)}, which the data do not have: choose from "
                f"{names}."
            )
        attended = torch.tensor([name in chosen for name in names])
        self.register_buffer("attended", attended, persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        features = self.network.features(batch["image"])
        logits = self.network.classify(features)
        classification = self.criterion(logits, batch["label"])
        attention = self.attention(features, logits, batch)
        loss = (1 - self.alpha) * classification + self.alpha * attention
        self.log_dict({"train/loss": loss, "train/attention": attention})
        return loss

    def attention(self, features: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """L_a of the global batch, from feature maps (B, C, h, w) and logits (B, K)."""
        if "mask" not in batch:
            raise ModelError("CARE needs the masks of the lesions: set --data.mask=true.")
        if features.ndim != 4:
            raise ModelError("CARE needs feature maps (B, C, h, w): set model.network to a CNN.")
        lesion = bounding_boxes(batch["mask"]) if self.boxes else batch["mask"]
        # Half precision would lose small differences in sums over positions and channels.
        with torch.autocast(features.device.type, enabled=False):
            heat = normalize(grad_cam(features, logits, batch["label"]))
            height, width = heat.shape[1:]
            inside = F.adaptive_avg_pool2d(lesion, (height, width)).squeeze(1)
            losses = attention_loss(heat, inside, self.tau, self.outside_weight)
        chosen = self.attended[batch["label"]] & (inside.sum((1, 2)) > MIN_AREA)
        counted = losses.where(chosen, 0), chosen.to(losses.dtype), torch.ones_like(losses)
        total, attended, images = global_sum(torch.stack(counted).sum(1))
        factors = {"batch": PUBLISHED_BATCH / images, "sum": 1.0, "mean": 1 / attended.clamp(min=1)}
        return total * factors[self.reduction]


def grad_cam(features: Tensor, logits: Tensor, label: Tensor) -> Tensor:
    """Grad-CAM of the true class (https://arxiv.org/abs/1610.02391, eq. 1 and 2), without ReLU.

    sum_k a_k A_k, where a_k is the sum over positions of the gradient of z_y. a_k is a constant:
    CARE has no second derivatives. For a head of average pooling and a linear layer, a_k is W_yk
    and this is the CAM; the gradient is then as cheap as a look-up in W.

    Args:
        features: Feature maps A (B, C, h, w), from which ``logits`` were computed.
        logits: Logits z (B, K); their graph is kept.
        label: Labels y (B,).

    Returns:
        Maps (B, h, w), float32.
    """
    score = logits.gather(1, label[:, None])
    # Multiplied by hw, which pooling divides by: the gradient would underflow in half precision.
    scale = torch.full_like(score, features[0, 0].numel())
    (gradient,) = torch.autograd.grad(score, features, scale, retain_graph=True)
    return torch.einsum("bk,bkhw->bhw", gradient.float().mean((2, 3)), features.float())


def normalize(cam: Tensor) -> Tensor:
    """Maps (B, h, w) shifted and scaled to the range [0, 1]; constant maps become 0."""
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    span = high - low
    # Maps that are constant up to rounding would have a gradient of 1 / span.
    floor = 1e-5 * torch.maximum(low.abs(), high.abs()) + torch.finfo(cam.dtype).tiny
    return ((cam - low) / torch.maximum(span, floor)).where(span > floor, 0)


def attention_loss(heat: Tensor, inside: Tensor, tau: float, outside_weight: float) -> Tensor:
    """L_in + lambda L_out of each image (B,).

    Args:
        heat: Maps F (B, h, w) in [0, 1].
        inside: Share M_in (B, h, w) of each cell that is lesion; L_out is 0 if all of it is.
        tau: Attention inside the lesion above which L_in no longer decreases.
        outside_weight: Weight lambda of L_out.
    """
    return _mean(heat, 1 - inside) * outside_weight - _mean(heat, inside).clamp(max=tau)


def _mean(heat: Tensor, weight: Tensor) -> Tensor:
    return (weight * heat).sum((1, 2)) / weight.sum((1, 2)).clamp(min=MIN_AREA)


def bounding_boxes(mask: Tensor) -> Tensor:
    """Masks (B, 1, H, W) in [0, 1] to their upright bounding boxes, 0 or 1."""
    lesion = mask >= 0.5
    rows, columns = _between(lesion.any(3)), _between(lesion.any(2))  # (B, 1, H), (B, 1, W)
    return rows[..., :, None] * columns[..., None, :]


def _between(hit: Tensor) -> Tensor:
    """1 from the first to the last hit along the last dimension, 0 elsewhere."""
    hit = hit.float()
    return hit.cummax(-1).values * hit.flip(-1).cummax(-1).values.flip(-1)
