"""Vector-scaling loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.losses.logit_adjusted import LogitAdjustedLoss
from lightning_modules.losses.sample_loss import as_counts


class VSLoss(LogitAdjustedLoss):
    """Vector-scaling loss, VS (https://arxiv.org/abs/2103.01550).

    Cross-entropy of Delta_c z_c + iota_c, with Delta_c = (N_c / max N)^gamma and iota_c =
    tau log(N_c / N). The unscaled logits z of the network decide. Additive adjustments help at the
    start of training, and multiplicative ones at its end, when all training images are fitted.

    Args:
        class_counts: Training images per class, N_c; the command line takes them from the data.
            Equal counts give cross-entropy.
        gamma: Exponent of the scales, at least 0. 0 gives the logit-adjusted loss.
        tau: Strength of the additive adjustment, at least 0. 0 gives the class-dependent
            temperatures loss, CDT (https://arxiv.org/abs/2001.01385).
        **kwargs: As for :class:`SampleLoss`; ``weights`` are the paper's omega_c.

    Raises:
        ModelError: ``gamma`` is negative.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> VSLoss(class_counts=[80, 20], gamma=0.5)(logits, torch.tensor([0, 1]))
        tensor(0.6324)
    """

    scales: Tensor

    def __init__(
        self, class_counts: Sequence[int], gamma: float = 0.3, tau: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(class_counts, tau, **kwargs)
        if gamma < 0:
            raise ModelError(f"gamma={gamma} is negative: set it to at least 0.")
        counts = as_counts(class_counts)
        scales = (counts / counts.max()) ** gamma
        self.register_buffer("scales", scales.float(), persistent=False)

    def per_label(self, logits: Tensor) -> Tensor:
        return super().per_label(self.scales * logits)
