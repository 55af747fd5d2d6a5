"""Image files as 8-bit RGB pixels and binary masks, however their format stores them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

with suppress(ImportError):  # where it is installed, Pillow decodes HEIC, too
    from pillow_heif import register_heif_opener

    register_heif_opener()

# Files are read, or named with the reason; Pillow's warnings would name lines of its code.
warnings.filterwarnings("ignore", module=r"PIL\.")

# The limit beyond which Pillow refuses files, without the warning that it prints from half of it.
MOST_PIXELS = 178_956_970
Image.MAX_IMAGE_PIXELS = None

# EPS would start Ghostscript; Pillow recognises the others, but decodes none of them.
NOT_DECODED = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# Formats that the first bytes tell for certain. TIFF is none: raw files of cameras are TIFF files.
CERTAIN = {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "WEBP"}

DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and files
DIM = 64  # a full scale is reached by more than a quarter, of 8 bits


def is_photo(path: Path) -> bool:
    """Whether a file is of a format that Pillow decodes, by its ending or its first bytes.

    A link to a file that does not exist is judged by its ending.
    """
    formats = _formats()
    if Image.registered_extensions().get(path.suffix.lower()) in formats:
        return path.is_file() or not path.exists()
    if not path.is_file():
        return False
    try:
        with Image.open(path, formats=sorted(CERTAIN & set(formats))):
            return True
    except Exception:  # Pillow raises half a dozen types for files that it does not know
        return False


def read_rgb(path: Path) -> np.ndarray:
    """The picture in an image file as (H, W, 3) uint8, upright.

    - Gray of more than 8 bits is scaled from the smallest of 8, 10, 12, 14 and 16 bits that holds
      its brightest pixel, and gray in floating point from 1 or from 255.
    - Transparent pixels keep the colour that is stored for them. Where the colour was erased, so
      that all of them are black, the picture is put on white, as viewers show it.

    Raises:
        OSError: The file is missing, truncated or no image.
        ValueError: Its pixels cannot be told to be those of an 8-bit picture.
    """
    with _opened(path) as image:
        deep = ";16" in str(
            getattr(image, "tile", "")
        )  # Pillow keeps the higher 8 bits of such colours
        white_is_zero = _white_is_zero(image)
        upright = ImageOps.exif_transpose(image)
        if _is_number(upright):
            gray = _as_8_bit(np.asarray(upright))
            gray = 255 - gray if white_is_zero else gray
            return np.repeat(gray[..., None], 3, axis=2)
        pixels = _on_white(upright) if upright.has_transparency_data else upright.convert("RGB")
    rgb = np.array(pixels)
    if deep and rgb.max() < DIM:
        raise ValueError("its 16-bit colours use less than a quarter of their range")
    return rgb


def read_inside(path: Path) -> np.ndarray:
    """A mask file as (H, W) uint8: 255 inside the lesion, and 0 outside.

    Inside is what has more than half of the mask's brightest value in any channel, so that masks
    of 0 and 1, 0 and 255, of colours, of 16 bits and with JPEG's noise are the same. Transparent
    pixels are outside.

    Raises:
        OSError: The file is missing, truncated or no image.
        ValueError: It is no mask: its brightest value is neither 0, 1, nor bright.
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if _is_number(upright):
            values = np.asarray(upright)
            opaque = np.ones(values.shape, dtype=bool)
        else:
            rgba = np.asarray(upright.convert("RGBA"))
            opaque = rgba[..., 3] > 127
            values = rgba[..., :3].max(axis=2)
    most = values[opaque].max(initial=0)
    if not np.isfinite(values).all() or values.min() < 0 or 1 < most < DIM:
        raise ValueError(f"it is no mask: its brightest value is {most}, and not 0, 1 or 255")
    if most == 0 and not opaque.all():  # a black lesion on nothing
        return opaque.astype(np.uint8) * 255
    return (opaque & (values > most / 2)).astype(np.uint8) * 255


def reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, without its name."""
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which does not exist"
    if isinstance(error, UnidentifiedImageError):
        return "no image of a known format" if path.stat().st_size else "an empty file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def is_damage(error: Exception) -> bool:
    """Whether the content of a file is at fault, and not the machine or the permissions."""
    system = isinstance(error, OSError) and error.errno is not None
    return not system and not isinstance(error, MemoryError)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    # PIL, not OpenCV: OpenCV fills what a truncated file lacks with gray and says nothing.
    with Image.open(path, formats=_formats()) as image:
        if (pixels := image.width * image.height) > MOST_PIXELS:
            raise ValueError(
                f"{pixels / 1e6:.0f} megapixels, but at most {MOST_PIXELS / 1e6:.0f} are decoded"
            )
        yield image


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.OPEN if name not in NOT_DECODED]


def _is_number(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def _white_is_zero(image: Image.Image) -> bool:
    # Pillow inverts such TIFF files only where they have 8 bits.
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0


def _as_8_bit(values: np.ndarray) -> np.ndarray:
    least, most = values.min(), values.max()
    if not (np.isfinite(least) and np.isfinite(most)) or least < 0:
        raise ValueError(f"its values reach from {least} to {most}, and not from 0")
    if values.dtype.kind == "f":
        scales = [1] if most <= 1 else [255] if most >= DIM else []
    else:
        scales = [2**bits - 1 for bits in DEPTHS]
    scale = next((scale for scale in scales if most <= scale), None)
    if scale is None:
        raise ValueError(f"its brightest value is {most}, which tells no scale")
    return np.rint(values * (255 / scale)).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    pixels = np.asarray(rgba)
    transparent = pixels[..., 3] == 0
    if transparent.all():
        raise ValueError("all of it is transparent")
    if not transparent.any() or pixels[transparent][:, :3].any():
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
