"""JPEG and WebP, as baselines for learned codecs."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_modules.codecs.codec import Codec, Reconstruction, to_bytes
from lightning_modules.errors import ModelError

BEST_QUALITY = 100


class FileCodec(Codec):
    """Codec by an image format with a quality from 0 to 100; bits are those of the whole file.

    With ``bits_per_pixel``, bisection finds the best quality at which the file of each image is not
    larger. All images then have about the same size, as with k-means and autoencoders; the reported
    rate is that of the actual files, since some images are too large even at quality 0 and others
    smaller even at 100. With ``quality``, simple images have smaller files, as with codecs whose
    rate varies, such as the hyperprior.

    Args:
        bits_per_pixel: Largest number of bits per pixel of a file, above 0; 4 is 6x.
        quality: Quality of all files, from 0 to 100, in place of ``bits_per_pixel``.
    """

    format: ClassVar[str]
    options: Mapping[str, Any]

    def __init__(self, bits_per_pixel: float | None = None, quality: int | None = None) -> None:
        super().__init__()
        if (bits_per_pixel is None) == (quality is None):
            raise ModelError(
                f"{self.format} takes either bits_per_pixel or quality: set one of them."
            )
        self.bits_per_pixel, self.quality = bits_per_pixel, quality

    def reconstruct(self, images: Tensor) -> Reconstruction:
        files = self.encode(images)
        bits = images.new_tensor([8.0 * len(file) for file in files])
        return Reconstruction(self.decode(files).to(images.device), bits)

    @torch.no_grad()
    def encode(self, images: Tensor) -> list[bytes]:
        """Encode each image to a file."""
        pixels = to_bytes(images).byte().permute(0, 2, 3, 1).cpu().numpy()
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # encoding releases the interpreter lock
            return list(pool.map(self.file, pixels))

    def decode(self, code: list[bytes]) -> Tensor:
        pixels = np.stack(
            [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in code]
        )
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255

    def file(self, pixels: np.ndarray) -> bytes:
        """The file of one image (H, W, 3) uint8, at the quality that the rate allows."""
        if self.bits_per_pixel is None:
            return self.file_of_quality(pixels, self.quality or 0)
        allowed = self.bits_per_pixel * pixels.shape[0] * pixels.shape[1] / 8
        if len(best := self.file_of_quality(pixels, BEST_QUALITY)) <= allowed:
            return best
        fits, fails = 0, BEST_QUALITY
        while fails - fits > 1:
            middle = (fits + fails) // 2
            small = len(self.file_of_quality(pixels, middle)) <= allowed
            fits, fails = (middle, fails) if small else (fits, middle)
        return self.file_of_quality(pixels, fits)

    def file_of_quality(self, pixels: np.ndarray, quality: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, self.format, quality=quality, **self.options)
        return buffer.getvalue()


class JPEG(FileCodec):
    """Baseline JPEG with its own Huffman tables.

    Args:
        bits_per_pixel: As for :class:`FileCodec`.
        quality: As for :class:`FileCodec`.
        halve_colours: Whether to halve the resolution of colors, as cameras do and WebP always
            does.

    Examples:
        >>> images = torch.full((1, 3, 16, 16), 0.5)
        >>> reconstruction = JPEG(quality=90)(images)
        >>> bool((reconstruction.image - images).abs().max() < 0.01)
        True
    """

    format = "JPEG"

    def __init__(
        self,
        bits_per_pixel: float | None = None,
        quality: int | None = None,
        halve_colours: bool = False,
    ) -> None:
        super().__init__(bits_per_pixel, quality)
        self.options = {"optimize": True, "subsampling": "4:2:0" if halve_colours else "4:4:4"}


class WebP(FileCodec):
    """Lossy WebP; the format halves the resolution of colors."""

    format = "WebP"
    options: Mapping[str, Any] = MappingProxyType({"method": 4})
