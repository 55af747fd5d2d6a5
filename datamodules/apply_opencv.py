"""Warp, colors and blur of images on a CPU: one image at a time, by OpenCV."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor

from datamodules.apply_torch import GEOMETRIC, LUMA, color_maps


def is_8_bit_on_cpu(batch: dict[str, Tensor]) -> bool:
    """Whether OpenCV can warp the image and all maps of a batch."""
    planes = [batch[name] for name in GEOMETRIC if name in batch]
    return all(x.dtype == torch.uint8 and x.device.type == "cpu" for x in planes)


def change(batch: dict[str, Tensor], inverse: Tensor, factors: Tensor) -> dict[str, Tensor]:
    """Warp image, mask and saliency, and change the image's colors.

    The result is that of :func:`~datamodules.apply_torch.warp` and
    :func:`~datamodules.apply_torch.adjust` on the same pixels as floats, rounded to 8 bits after
    the warp and after the colors, whose matrix is rounded to 1/1024: at most 2/255 with the default
    options of ``Augment``. OpenCV 4 also rounds the coordinates of the warp, to 1/32 pixel;
    OpenCV 5 does not.

    Args:
        batch: Batch of B images, uint8, (B, 3, H, W), and optionally ``mask`` and ``saliency``.
        inverse: Inverse affine maps (V, B, 2, 3) of the V views, as in ``F.affine_grid``.
        factors: Factors (V B, 3) of brightness, contrast and saturation.

    Returns:
        A batch of V B images, all first views first, with pixels in [0, 1].
    """
    views = len(inverse)
    maps = [name for name in GEOMETRIC[1:] if name in batch]
    image, *planes = (pixels(batch[name]) for name in ("image", *maps))
    quads = with_alpha(image, planes[0] if planes else None)
    number, height, width, _ = quads.shape
    warps, borders = in_pixels(inverse.flatten(0, 1), height, width)
    matrix, weight = color_maps(factors)
    colors = torch.cat([matrix, weight.expand(-1, 3, 1)], dim=2).double().numpy()  # (V B, 3, 4)
    outs = [np.empty((len(warps), height, width, c), np.float32) for c in (3, *[1] * len(planes))]

    def change_image(i: int) -> None:
        warped = warp_one(quads[i % number], warps[i], borders[i])
        rgb = cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
        colors[i, :, 3] *= mean_luminance(rgb)
        scale(cv2.transform(rgb, colors[i]), outs[0][i])
        if planes:
            scale(cv2.extractChannel(warped, 3)[..., None], outs[1][i])
        for plane, out in zip(planes[1:], outs[2:], strict=True):
            scale(warp_one(plane[i % number], warps[i], borders[i])[..., None], out[i])

    in_threads(change_image, len(warps))
    results = [torch.from_numpy(out).permute(0, 3, 1, 2) for out in outs]
    others = {k: torch.cat([v] * views) for k, v in batch.items() if k not in ("image", *maps)}
    return others | dict(zip(("image", *maps), results, strict=True))


def blur(image: Tensor, chosen: Tensor, size: int, sigma: Tensor) -> None:
    """Blur images in place, as :func:`datamodules.apply_torch.blur`, in a third of the time."""
    images = image.permute(0, 2, 3, 1).numpy()
    indices, deviations = chosen.tolist(), sigma.tolist()

    def blur_image(i: int) -> None:
        source = np.ascontiguousarray(images[indices[i]])
        images[indices[i]] = cv2.GaussianBlur(source, (size, size), deviations[i])

    in_threads(blur_image, len(indices))


def pixels(planes: Tensor) -> np.ndarray:
    """Planes (B, C, H, W) as an array (B, H, W, C), a view if they are channels-last."""
    return planes.permute(0, 2, 3, 1).contiguous().numpy()


def with_alpha(image: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Images (B, H, W, 4), because OpenCV warps four channels faster than three."""
    number, height, width, _ = image.shape
    quads = cv2.cvtColor(image.reshape(-1, width, 3), cv2.COLOR_RGB2RGBA)
    if alpha is not None:
        cv2.insertChannel(alpha.reshape(-1, width), quads, 3)
    return quads.reshape(number, height, width, 4)


def in_pixels(inverse: Tensor, height: int, width: int) -> tuple[np.ndarray, list[list[int]]]:
    """The warps in units of pixels, and the border that each image needs.

    OpenCV is slow where it reflects single pixels, and copies a whole border fast. A border as wide
    as the image, reflected again, is the image's own reflection, so none is wider.

    Args:
        inverse: Affine maps (N, 2, 3) as in ``F.affine_grid``, from the target to the source.
        height: Height of the images.
        width: Width of the images.

    Returns:
        Affine maps (N, 2, 3) from the target to the source with its border, and the borders at the
        top, bottom, left and right.
    """
    size = np.array([width, height])
    half = size / 2
    center = half - 0.5
    maps = inverse.double().numpy()
    linear = maps[:, :, :2] * half[:, None] / half
    middle = maps[:, :, 2] * half + center  # where the target's center comes from
    reach = np.abs(linear) @ center  # of the target's corners from there
    before = np.clip(np.ceil(reach - middle) + 1, 0, size)
    after = np.clip(np.ceil(reach + middle) + 2 - size, 0, size)
    shift = middle + before - linear @ center
    borders = np.stack([before[:, 1], after[:, 1], before[:, 0], after[:, 0]], axis=1)
    return np.concatenate([linear, shift[:, :, None]], axis=2), borders.astype(int).tolist()


def warp_one(image: np.ndarray, inverse: np.ndarray, border: list[int]) -> np.ndarray:
    """The image (H, W, C) at ``inverse`` of each pixel, bilinear, reflected outside of it."""
    height, width = image.shape[:2]
    top, bottom, left, right = border
    bordered = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REFLECT)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(bordered, inverse, (width, height), None, flags, cv2.BORDER_REFLECT)


def mean_luminance(image: np.ndarray) -> float:
    """Mean luminance of an image (H, W, 3)."""
    return sum(weight * mean for weight, mean in zip(LUMA, cv2.mean(image), strict=False))


def scale(source: np.ndarray, target: np.ndarray) -> None:
    """Write 8-bit pixels to ``target`` as floats in [0, 1]."""
    np.multiply(source, np.float32(1 / 255), out=target)


def in_threads(work: Callable[[int], None], number: int) -> None:
    """Call ``work`` with 0 to ``number`` - 1, in as many threads as torch uses.

    Threads end with the call, so that processes can be forked between two batches.
    """
    threads = min(torch.get_num_threads(), number)

    def share(first: int) -> None:
        for i in range(first, number, threads):
            work(i)

    with one_thread_per_image():
        if threads <= 1:
            share(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(share, range(threads)))


def end_threads_before_forks() -> None:
    """Let forked processes start with one thread of OpenCV.

    Threads do not survive a fork, and OpenCV would wait for them at its next change of their
    number.
    """
    numbers: list[int] = []

    def end() -> None:
        numbers.append(cv2.getNumThreads())
        cv2.setNumThreads(1)

    os.register_at_fork(before=end, after_in_parent=lambda: cv2.setNumThreads(numbers.pop()))


end_threads_before_forks()


@contextmanager
def one_thread_per_image() -> Iterator[None]:
    """Switch off OpenCV's own threads, which would compete with those over the images."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
