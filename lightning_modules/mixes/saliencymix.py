"""SaliencyMix: the most salient box of one image in another."""

from __future__ import annotations

from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.mixes.cutmix import CutMix


class SaliencyMix(CutMix):
    """SaliencyMix (https://arxiv.org/abs/2006.01791, section 3): a box that holds something.

    CutMix whose box has its centre where the *source*, the image that the box is taken from, is
    most salient. It is pasted at the same place and the labels are weighted by area.

    The paper has a box for each image, and so have we. The published code takes the box of the
    first source for the whole batch
    (https://github.com/afm-shahab-uddin/SaliencyMix, ``saliencymix.py``).

    Args:
        alpha: As for :class:`CutMix`.
        probability: Of mixing at all; 0.5 in the paper.
        per_image: Draws lambda and whether to mix for each image, not once for a batch.
        num_classes: K; the command line takes it from the data.

    Shape:
        As for :class:`CutMix`, and ``saliency`` (B, 1, H, W) is needed.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        probability: float = 0.5,
        per_image: bool = False,
        num_classes: int = 7,
    ) -> None:
        super().__init__(alpha, probability, per_image, num_classes)

    def centres(
        self, batch: dict[str, Tensor], partner: Tensor, draws: int
    ) -> tuple[Tensor, Tensor]:
        if "saliency" not in batch:
            raise ModelError("SaliencyMix needs the saliency of the images: set data.saliency.")
        width = batch["saliency"].shape[-1]
        peak = batch["saliency"].flatten(1).argmax(1)[partner]
        return peak // width, peak % width
