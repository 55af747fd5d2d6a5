"""Either mixup or CutMix, drawn for each batch."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.mixes.cutmix import CutMix
from lightning_modules.mixes.mix import Mix
from lightning_modules.mixes.mixup import Mixup, soft_labels


class MixupOrCutMix(Mix):
    """Mixup or CutMix, drawn for each batch, as in DeiT and timm's training script.

    https://arxiv.org/abs/2012.12877, section 6

    Args:
        mixup_alpha: Parameter of mixup's Beta distribution, above 0; 0.8 in DeiT.
        cutmix_alpha: Parameter of CutMix's Beta distribution, above 0; 1 in DeiT.
        probability: Probability that a batch is mixed, in [0, 1]; 1 in DeiT.
        switch_probability: Probability that a batch that is mixed is mixed by CutMix, in [0, 1]; 0
            is mixup alone, 1 CutMix alone, and DeiT has 0.5.
        num_classes: Number of classes K; the command line takes it from the data.

    Shape:
        As for :class:`~lightning_modules.mixes.Mixup`; labels are one-hot where nothing is mixed.

    Examples:
        >>> batch = {"image": torch.rand(4, 3, 8, 8), "label": torch.tensor([0, 1, 2, 0])}
        >>> mixed = MixupOrCutMix(num_classes=3)(batch)
        >>> mixed["image"].shape, mixed["label"].shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 3]))
    """

    def __init__(
        self,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        probability: float = 1.0,
        switch_probability: float = 0.5,
        num_classes: int = 7,
    ) -> None:
        super().__init__()
        self.mixup = Mixup(mixup_alpha, num_classes=num_classes)
        self.cutmix = CutMix(cutmix_alpha, num_classes=num_classes)
        self.probability = probability
        self.switch_probability = switch_probability
        self.num_classes = num_classes

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        # On the CPU, so that no branch waits for the device.
        mixed, switched = torch.rand(2).tolist()
        if mixed < self.probability:
            return self.cutmix(batch) if switched < self.switch_probability else self.mixup(batch)
        return batch | {"label": soft_labels(batch["label"], self.num_classes)}
