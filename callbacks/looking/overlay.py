"""Pictures of where a network looks: heat over a photo, and the outline of the lesion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from callbacks.looking.attention_maps import enlarged

TILE, GAP, LINE = 224, 6, 20  # pixels: a picture, the space around it, a line of text
STRENGTH = 0.65  # of the heat where it is highest

Pixels = NDArray[np.uint8]


def picture(
    image: Tensor, maps: Mapping[str, Tensor], caption: str, mask: Tensor | None = None
) -> Image.Image:
    """The photo with the lesion's outline, beside it every map over it, below them the caption.

    Args:
        image: (3, H, W) in [0, 1].
        maps: Name to heat (h, w), at least 0; each is drawn from 0 to its own largest value.
        caption: One line; another one names the maps.
        mask: (H, W) in [0, 1]; without it there is no outline.
    """
    photo = _tile(image.mul(255).round().byte().permute(1, 2, 0).cpu().numpy())
    tiles = [photo, *(_heat(photo, heat) for heat in maps.values())]
    step = TILE + GAP
    page = Image.new("RGB", (len(tiles) * step + GAP, TILE + 2 * GAP + 2 * LINE), "white")
    write, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for column, (tile, name) in enumerate(zip(tiles, ["", *maps], strict=True)):
        left = GAP + column * step
        page.paste(Image.fromarray(_outlined(tile, mask)), (left, GAP))
        write.text((left, TILE + GAP + LINE), name, "gray", font)
    write.text((GAP, TILE + GAP), caption, "black", font)
    return page


def _heat(photo: Pixels, heat: Tensor) -> Pixels:
    """Transparent where nothing is, so that what is not looked at stays to be seen."""
    large = enlarged(heat[None].cpu(), torch.Size((TILE, TILE)))[0]
    high = (large / large.max().clamp(min=torch.finfo(large.dtype).tiny)).numpy()
    colours = cv2.applyColorMap((255 * high).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    alpha = STRENGTH * high[..., None]
    mixed: Pixels = ((1 - alpha) * photo + alpha * colours).round().astype(np.uint8)
    return mixed


def _outlined(tile: Pixels, mask: Tensor | None) -> Pixels:
    drawn = np.ascontiguousarray(tile).copy()
    if mask is not None:
        lesion = (_tile(mask.float().cpu().numpy()) >= 0.5).astype(np.uint8)
        contours, _ = cv2.findContours(lesion, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # seen on light and on dark
            cv2.drawContours(drawn, contours, -1, colour, width)
    return drawn


def _tile(pixels: Any) -> Any:
    return cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
