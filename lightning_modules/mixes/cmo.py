"""CMO: pastes a box of an image of a rare class into an image of any class."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.batches import pairs
from lightning_modules.mixes.cutmix import CutMix


class CMO(CutMix):
    """Context-rich minority oversampling (https://arxiv.org/abs/2112.00412, algorithm 1).

    CutMix of pairs: the foreground, a box of an image from a distribution in favor of rare classes,
    is pasted into the background, an image from the natural distribution. Needs batches of
    :class:`datamodules.samplers.Paired`, with backgrounds in even and foregrounds in odd rows:
    anchors ``natural``, and partners ``balanced`` or ``reversed``.

    Whether an image is mixed does not depend on the class of the background. But the boxes are of
    rare classes and most images without a box are not, so that the box gives away something about
    the label of a mix.

    Args:
        alpha: Parameter of the Beta distribution, above 0; at 1 lambda is uniform, as in the
            published code (https://github.com/naver-ai/cmo).
        probability: Probability of mixing, in [0, 1]; 0.5 in the published code. Other backgrounds
            are kept as they are, and their foregrounds are not used. The code does not mix in the
            first 4 and the last 3 of 200 epochs; ``callbacks.Anneal`` sets it to 0 at the end.
        per_image: Whether to draw lambda, center and the decision to mix for each image; the
            published code draws them once per batch.
        num_classes: Number of classes K; the command line takes it from the data.

    Raises:
        ModelError: The images are vectors, or the number of rows is odd.

    Shape:
        As for :class:`CutMix`, from 2 n rows to n rows.

    Examples:
        >>> batch = {"image": torch.rand(4, 3, 8, 8), "label": torch.tensor([0, 1, 0, 2])}
        >>> mixed = CMO(num_classes=3)(batch)
        >>> mixed["image"].shape, mixed["label"].shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 3]))
    """

    rows = "anchor and partner"

    def __init__(
        self,
        alpha: float = 1.0,
        probability: float = 0.5,
        per_image: bool = False,
        num_classes: int = 7,
    ) -> None:
        super().__init__(alpha, probability, per_image, num_classes)

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        background, foreground = pairs(batch, self.rows, None)
        return self.pasted(background, foreground)
