"""Figures of attention maps: heat over a photo, and the outline of the lesion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from callbacks.looking.network_attention import enlarged

TILE, GAP, LINE_HEIGHT = 224, 6, 20  # in pixels: side of a tile, space around it, line of text
MAX_OPACITY = 0.65  # of the heat, at its maximum
COMPRESSION = 3  # of PNG files: a third of the default's time for files a tenth larger

Pixels = NDArray[np.uint8]


def draw_heatmap(
    image: Tensor, maps: Mapping[str, Tensor], caption: str, mask: Tensor | None = None
) -> Image.Image:
    """Draw a photo, the photo under each map, and a caption below.

    Args:
        image: Photo (3, H, W) in [0, 1].
        maps: Maps (h, w) by name, at least 0; each is scaled from 0 to its maximum.
        caption: Text below the photo, in one line; the next line names the maps.
        mask: Mask of the lesion (H, W) in [0, 1], drawn as an outline; None draws no outline.
    """
    photo = _tile(image.mul(255).round().byte().permute(1, 2, 0).cpu().numpy())
    tiles = [photo, *(_heat(photo, heat) for heat in maps.values())]
    step = TILE + GAP
    page = Image.new("RGB", (len(tiles) * step + GAP, TILE + 2 * GAP + 2 * LINE_HEIGHT), "white")
    write, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for column, (tile, name) in enumerate(zip(tiles, ["", *maps], strict=True)):
        left = GAP + column * step
        page.paste(Image.fromarray(_outlined(tile, mask)), (left, GAP))
        write.text((left, TILE + GAP + LINE_HEIGHT), name, "gray", font)
    write.text((GAP, TILE + GAP), caption, "black", font)
    return page


def _heat(photo: Pixels, heat: Tensor) -> Pixels:
    """Overlay the photo with heat that is transparent where the map is 0."""
    large = enlarged(heat[None].cpu(), torch.Size((TILE, TILE)))[0]
    high = (large / large.max().clamp(min=torch.finfo(large.dtype).tiny)).numpy()
    colors = cv2.applyColorMap((255 * high).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    alpha = MAX_OPACITY * high[..., None]
    mixed: Pixels = ((1 - alpha) * photo + alpha * colors).round().astype(np.uint8)
    return mixed


def _outlined(tile: Pixels, mask: Tensor | None) -> Pixels:
    drawn = np.ascontiguousarray(tile).copy()
    if mask is not None:
        lesion = (_tile(mask.float().cpu().numpy()) >= 0.5).astype(np.uint8)
        contours, _ = cv2.findContours(lesion, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # visible on light and on dark
            cv2.drawContours(drawn, contours, -1, color, width)
    return drawn


def _tile(pixels: Any) -> Any:
    return cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
