"""SaliencyMix: pastes the most salient box of one image into another."""

from __future__ import annotations

from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.mixes.cutmix import CutMix


class SaliencyMix(CutMix):
    """SaliencyMix (https://arxiv.org/abs/2006.01791, section 3): CutMix of salient boxes.

    The center of the box is the most salient pixel of the *source*, the image that the box is
    copied from. It is pasted at the same position, and the labels are weighted by area.

    As in the paper, each image has its own box. The published code uses the box of the first
    source for the whole batch
    (https://github.com/afm-shahab-uddin/SaliencyMix, ``saliencymix.py``).

    Args:
        alpha: Parameter of the Beta distribution, above 0, as for :class:`CutMix`.
        probability: Probability of mixing, in [0, 1]; 0.5 in the paper.
        per_image: Whether to draw lambda and the decision to mix for each image instead of once per
            batch.
        num_classes: Number of classes K; the command line takes it from the data.

    Shape:
        As for :class:`CutMix`; ``saliency`` (B, 1, H, W) is required.

    Examples:
        >>> import torch
        >>> batch = {"image": torch.rand(4, 3, 8, 8), "label": torch.tensor([0, 1, 2, 0])}
        >>> batch["saliency"] = torch.rand(4, 1, 8, 8)
        >>> SaliencyMix(probability=1.0, num_classes=3)(batch)["label"].shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        alpha: float = 1.0,
        probability: float = 0.5,
        per_image: bool = False,
        num_classes: int = 7,
    ) -> None:
        super().__init__(alpha, probability, per_image, num_classes)

    def centers(self, sources: dict[str, Tensor], draws: int) -> tuple[Tensor, Tensor]:
        if "saliency" not in sources:
            raise ModelError(
                "SaliencyMix needs the saliency of the images: set --data.saliency=true."
            )
        width = sources["saliency"].shape[-1]
        peak = sources["saliency"].flatten(1).argmax(1)
        return peak // width, peak % width
