"""Fidelity of compressed images: of the image, its lesion, and their contrast to the skin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from kornia.filters import get_gaussian_kernel1d
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lightning_modules.codecs import Reconstruction
from lightning_modules.definitions import Shots
from lightning_modules.metrics import DiagnosticMetrics

WINDOW, SIGMA = 11, 1.5
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of MS-SSIM, fine to coarse
NAMES = ("psnr", "ssim", "ms_ssim", "mae")
COLUMNS = (
    *NAMES,
    *(f"lesion_{name}" for name in NAMES),
    "explained",
    "contrast_before",
    "contrast_after",
    "bits_per_pixel",
    "values_ratio",
)


class Fidelity(Metric):
    """Fidelity of reconstructions: measurements of each image, and their means over the images.

    - ``psnr``, ``ssim`` (https://doi.org/10.1109/TIP.2003.819861), ``ms_ssim``
      (https://doi.org/10.1109/ACSSC.2003.1292216) and ``mae``, and the same inside the lesion.
      PSNR is at most 100 dB, and NaN pixels count as black. MS-SSIM uses the scales at which the
      image is wider than the window, four of the five at 128 pixels, with exponents rescaled to
      sum to 1;
    - ``explained``: 1 minus the squared error over the variance of the image. If it is not
      positive, the image's mean color is at least as good a reconstruction. Aggregated by the
      median, because images of nearly one color can have arbitrarily negative values;
    - ``contrast_before`` and ``contrast_after``: see :func:`contrast`;
    - ``bits_per_pixel``, for codecs that count bits, and ``values_ratio``, the number of values in
      the image over that in the latent.

    Measurements of the lesion require a mask and a lesion in it; contrasts also require skin.

    Args:
        class_names: Names of the K classes, in the order of the labels.
    """

    full_state_update = False
    columns = COLUMNS
    index: list[Tensor]
    label: list[Tensor]
    measured: list[Tensor]

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = list(class_names)
        for state in ("index", "label", "measured"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, batch: dict[str, Tensor], reconstruction: Reconstruction) -> None:
        """Add a batch with ``image``, ``label``, ``index`` and optionally ``mask``."""
        self.index.append(batch["index"])
        self.label.append(batch["label"])
        self.measured.append(measure(batch["image"], reconstruction, batch.get("mask")))

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, and sorted by ``index``: ``label`` (N,), ``measured`` (N, columns)."""
        order = dim_zero_cat(self.index).argsort()
        measured = dim_zero_cat(self.measured)[order]
        means = dict(zip(COLUMNS, measured.nanmean(0), strict=True))
        means["explained"] = measured[:, COLUMNS.index("explained")].nanmedian()
        return {
            **{name: mean for name, mean in means.items() if not mean.isnan()},
            "index": dim_zero_cat(self.index)[order],
            "label": dim_zero_cat(self.label)[order],
            "measured": measured,
        }


class CompressedMetrics(DiagnosticMetrics):
    """Diagnostic metrics of reconstructions, and their fidelity.

    Args:
        class_names: Names of the K classes, in the order of the labels.
        shots: As for :class:`~lightning_modules.metrics.DiagnosticMetrics`.
    """

    columns = COLUMNS

    def __init__(self, class_names: Sequence[str], shots: Shots | None = None) -> None:
        super().__init__(class_names, shots)
        self.fidelity = Fidelity(class_names)

    def update(  # type: ignore[override]
        self, logits: Tensor, batch: dict[str, Tensor], reconstruction: Reconstruction
    ) -> None:
        """Add a batch and the logits (B, K) of its reconstruction."""
        super().update(logits, batch["label"], batch["index"])
        self.fidelity.update(batch, reconstruction)

    def compute(self) -> dict[str, Tensor]:
        return super().compute() | self.fidelity.compute()

    def reset(self) -> None:
        super().reset()
        self.fidelity.reset()


def measure(images: Tensor, reconstruction: Reconstruction, mask: Tensor | None) -> Tensor:
    """Measure the images for :class:`Fidelity`: (B, columns), NaN for undefined measurements.

    Args:
        images: (B, 3, H, W) in [0, 1].
        reconstruction: Output of the codec for them.
        mask: Share of each pixel inside the lesion (B, 1, H, W).
    """
    # In full precision, because variances are differences of nearly equal numbers.
    with torch.autocast(images.device.type, enabled=False):
        reconstruction = reconstruction._replace(
            image=reconstruction.image.float().nan_to_num(0.0, 1.0, 0.0)
        )
        return _measure(images.float(), reconstruction, mask)


def _measure(images: Tensor, reconstruction: Reconstruction, mask: Tensor | None) -> Tensor:
    whole, pixels = torch.ones_like(images[:, :1]), images[0, 0].numel()
    unknown = whole.new_full((len(images),), torch.nan)
    lesion = whole * torch.nan if mask is None else mask
    variance = (images - images.mean((2, 3), keepdim=True)).square().mean((1, 2, 3))
    error = (images - reconstruction.image).square().mean((1, 2, 3))
    values = (
        unknown
        if reconstruction.latent is None
        else images[0].numel() / reconstruction.latent[0].numel()
    )
    columns = (
        1 - error / variance.clamp(min=1e-8),
        contrast(images, lesion),
        contrast(reconstruction.image, lesion),
        unknown if reconstruction.bits is None else reconstruction.bits / pixels,
        torch.zeros_like(unknown) + values,
    )
    regions = fidelity(images, reconstruction.image, torch.cat([whole, lesion], dim=1))
    return torch.cat([regions.flatten(1), torch.stack(columns, dim=1)], dim=1)


def fidelity(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """PSNR, SSIM, MS-SSIM and MAE of images (B, 3, H, W) in R regions with weights (B, R, H, W).

    Returns:
        (B, R, 4).
    """
    squared, absolute = (_mean(d, weight) for d in ((a - b).square(), (a - b).abs()))
    psnr = -10 * squared.clamp(min=1e-10).log10()
    return torch.stack([psnr, *structural_similarity(a, b, weight), absolute], dim=2)


def structural_similarity(a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and MS-SSIM (B, R): means of their maps with weights (B, R, H, W)."""
    similarities: list[Tensor] = []
    structure: list[Tensor] = []
    while min(a.shape[2:]) >= WINDOW and len(similarities) < len(SCALES):
        inner = weight[..., WINDOW // 2 : -(WINDOW // 2), WINDOW // 2 : -(WINDOW // 2)]
        luminance, contrast_structure = _similarity_maps(a, b)
        similarities.append(_mean(luminance * contrast_structure, inner))
        structure.append(_mean(contrast_structure, inner))
        a, b, weight = (F.avg_pool2d(x, 2) for x in (a, b, weight))
    exponents = a.new_tensor(SCALES[: len(similarities)])
    terms = torch.stack([*structure[:-1], similarities[-1]], dim=2).clamp(min=0)
    return similarities[0], (terms ** (exponents / exponents.sum())).prod(2)


def _similarity_maps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance l and contrast-structure cs, (B, 3, H - 10, W - 10); SSIM is their product."""
    c1, c2 = 0.01**2, 0.03**2
    down, across = (_windows(size, a) for size in a.shape[2:])
    mean_a, mean_b, square_a, square_b, product = (
        down @ x @ across.T for x in (a, b, a.square(), b.square(), a * b)
    )
    variance = square_a + square_b - mean_a.square() - mean_b.square()
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return luminance, (2 * (product - mean_a * mean_b) + c2) / (variance + c2)


def _windows(size: int, images: Tensor) -> Tensor:
    """Gaussian windows along one axis of ``images``, one per row: (size - 10, size).

    Products with them replace depthwise convolutions, which are slow on CPUs.
    """
    window = get_gaussian_kernel1d(WINDOW, SIGMA, device=images.device, dtype=images.dtype)
    identity = torch.eye(size, device=images.device, dtype=images.dtype)
    return F.conv1d(identity[:, None], window[None])[:, 0].T


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean (B, R) of images (B, C, H, W) with weights (B, R, H, W); NaN if those are all 0."""
    return torch.einsum("bhw,brhw->br", values.mean(1), weight) / weight.sum((2, 3))


def contrast(images: Tensor, mask: Tensor) -> Tensor:
    """Michelson contrast (B,) between a lesion and the skin around it, in [-1, 1].

    (S - L) / (S + L) of the mean luminances of lesion L and skin S, where skin is a ring around the
    lesion with the width of an eighth of the image. Positive if the lesion is darker; 0 for black
    images.
    """
    luma = images.new_tensor([0.299, 0.587, 0.114])
    luminance = torch.einsum("bchw,c->bhw", images, luma)[:, None]
    inside, reach = mask.round(), images.shape[2] // 8
    down = F.max_pool2d(inside, (2 * reach + 1, 1), stride=1, padding=(reach, 0))
    ring = F.max_pool2d(down, (1, 2 * reach + 1), stride=1, padding=(0, reach)) - inside
    skin, lesion = _mean(luminance, torch.cat([ring, inside], dim=1)).unbind(1)
    return (skin - lesion) / (skin + lesion).clamp(min=1e-8)
