"""Label-distribution-aware margin loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_modules.errors import ModelError
from lightning_modules.losses.sample_loss import SampleLoss, as_counts


class LDAMLoss(SampleLoss):
    """Label-distribution-aware margin loss, LDAM (https://arxiv.org/abs/1906.07413).

    l_c = -log(e^{z_c - s m_c} / (e^{z_c - s m_c} + sum_{k != c} e^{z_k})), cross-entropy that
    demands a margin m_c = C / N_c^{1/4} of the true class, larger for rarer classes. The paper's
    logits z_k = s cos(w_k, f) are those of a cosine classifier, such as
    :class:`~lightning_modules.networks.CosineHead`. Its published code multiplies cosines by s
    within the loss; here the classifier does, once, so that its probabilities are those that are
    trained, and the loss multiplies the margins only.

    Args:
        class_counts: Training images per class, N_c; the command line takes them from the data.
        max_margin: Margin of the class with the fewest images, as a difference of cosines, at
            least 0; it defines C. 0 gives cross-entropy.
        scale: Scale s of the cosines, greater than 0: set that of the classifier.
        **kwargs: As for :class:`SampleLoss`.

    Raises:
        ModelError: ``max_margin`` or ``scale`` is out of range.

    Examples:
        >>> cosines = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
        >>> loss = LDAMLoss(class_counts=[80, 20], scale=30)
        >>> loss(30 * cosines, torch.tensor([0, 1]))
        tensor(4.5001)
    """

    margins: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        max_margin: float = 0.5,
        scale: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(class_counts=class_counts, **kwargs)
        if max_margin < 0 or scale <= 0:
            raise ModelError(
                f"max_margin={max_margin} and scale={scale} are out of range: set a margin of at "
                "least 0 and a scale greater than 0."
            )
        shape = as_counts(class_counts) ** -0.25
        margins = scale * max_margin * shape / shape.max()
        # Added to the logits of the other classes, instead of subtracted from that of the label.
        pairs = margins[:, None] * (1 - torch.eye(len(margins), dtype=margins.dtype))
        self.register_buffer("margins", pairs.float(), persistent=False)

    def per_label(self, logits: Tensor) -> Tensor:
        return (logits[:, None] + self.margins).logsumexp(2) - logits  # (B, label K, class K)
