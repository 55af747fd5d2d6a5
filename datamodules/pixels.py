"""Decoding of image files to 8-bit RGB pixels and binary masks, whatever their format."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

with suppress(ImportError):  # with this package, Pillow decodes HEIC too
    from pillow_heif import register_heif_opener

    register_heif_opener()

# Unreadable files are reported with a reason; Pillow's warnings refer to lines of its code.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Pillow's own limit, without the warning that it prints from half of it.
MAX_PIXELS = 178_956_970
Image.MAX_IMAGE_PIXELS = None

# EPS would start Ghostscript; Pillow recognizes the others but cannot decode them.
NOT_DECODED = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# Formats identified by their first bytes. Not TIFF, because raw files of cameras are TIFF files.
BY_CONTENT = {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "WEBP"}

ORIENTATION = 274  # Exif's tag
QUARTER_TURNS = (5, 6, 7, 8)  # its values that exchange width and height
BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras and files
MIN_WHITE = 64  # of 8 bits; a darker maximum does not reveal the scale


def has_photo_ending(path: Path | str) -> bool:
    """Whether a file's ending is that of a format that Pillow can decode."""
    return os.path.splitext(path)[1].lower() in _endings()


def is_photo(path: Path | str) -> bool:
    """Whether Pillow can decode a file's format, judged by its ending or else its first bytes.

    A dangling link is judged by its ending.
    """
    if has_photo_ending(path):
        return os.path.isfile(path) or not os.path.exists(path)
    if not os.path.isfile(path):
        return False
    try:
        with Image.open(path, formats=sorted(BY_CONTENT & set(_formats()))):
            return True
    except Exception:  # Pillow raises half a dozen types for unknown files
        return False


def read_rgb(path: Path) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8, upright.

    - Gray of more than 8 bits is scaled down from the smallest of 8, 10, 12, 14 and 16 bits that
      holds its brightest pixel, and floating-point gray from 1 or 255.
    - Transparent pixels keep the color that is stored for them. If that color was erased, so that
      all of them are black, the image is put on white, as viewers show it.

    Raises:
        OSError: The file is missing, truncated or not an image.
        ValueError: The scale of the pixels is unclear.
    """
    with _opened(path) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an image of Pillow as :func:`read_rgb` does a file.

    Raises:
        OSError: The file that the image was opened from is truncated.
        ValueError: The scale of the pixels is unclear.
    """
    # Pillow keeps the higher 8 bits of such colors.
    deep = ";16" in str(getattr(image, "tile", ""))
    white_is_zero = _white_is_zero(image)
    upright = ImageOps.exif_transpose(image)
    if _is_number(upright):
        gray = _as_8_bit(np.asarray(upright))
        gray = 255 - gray if white_is_zero else gray
        return np.repeat(gray[..., None], 3, axis=2)
    pixels = _on_white(upright) if upright.has_transparency_data else upright.convert("RGB")
    rgb = np.array(pixels)
    if deep and rgb.max() < MIN_WHITE:
        raise ValueError("its 16-bit colors use less than a quarter of their range")
    return rgb


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as :func:`read_rgb` decodes it, from its header alone.

    Raises:
        OSError: The file is missing or not an image.
    """
    with _opened(path) as image:
        turned = image.getexif().get(ORIENTATION, 1) in QUARTER_TURNS
        return (image.height, image.width) if turned else image.size


def read_inside(path: Path) -> np.ndarray:
    """Decode a mask file to (H, W) uint8: 255 inside the lesion, 0 outside.

    Pixels are inside if any channel exceeds half of the mask's brightest value. So masks of 0 and
    1, of 0 and 255, of colors, of 16 bits and with JPEG noise are read alike. Transparent pixels
    are outside.

    Raises:
        OSError: The file is missing, truncated or not an image.
        ValueError: The brightest value is neither 0 nor 1 nor bright, so it is not a mask, or all
            pixels are transparent.
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
    if not opaque.any():
        raise ValueError("it is entirely transparent")
    brightest = values[opaque].max(initial=0)
    if not np.isfinite(values).all() or values.min() < 0 or 1 < brightest < MIN_WHITE:
        raise ValueError(f"not a mask: its brightest value is {brightest}, not 0, 1 or 255")
    if brightest == 0 and not opaque.all():  # a black lesion on a transparent background
        return opaque.astype(np.uint8) * 255
    return (opaque & (values > brightest / 2)).astype(np.uint8) * 255


def reason(path: Path, error: Exception) -> str:
    """The reason why a file cannot be read, without its name."""
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which does not exist"
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format" if path.stat().st_size else "an empty file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def is_damage(error: Exception) -> bool:
    """Whether the file's content is at fault, rather than the machine or the permissions."""
    system = isinstance(error, OSError) and error.errno is not None
    return not system and not isinstance(error, MemoryError)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    # Pillow, because OpenCV silently fills the rest of a truncated file with gray.
    with Image.open(path, formats=_formats()) as image:
        if (pixels := image.width * image.height) > MAX_PIXELS:
            raise ValueError(
                f"{pixels / 1e6:.0f} megapixels, but at most {MAX_PIXELS / 1e6:.0f} are supported"
            )
        yield image


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.OPEN if name not in NOT_DECODED]


@cache
def _endings() -> set[str]:
    """Endings of the files that Pillow decodes."""
    formats = set(_formats())
    return {ending for ending, name in Image.registered_extensions().items() if name in formats}


def _is_number(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def _white_is_zero(image: Image.Image) -> bool:
    # Pillow inverts such TIFF files only if they have 8 bits.
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0


def _as_8_bit(values: np.ndarray) -> np.ndarray:
    darkest = values.min()
    brightest = values.max()
    if not (np.isfinite(darkest) and np.isfinite(brightest)) or darkest < 0:
        raise ValueError(f"its values range from {darkest} to {brightest}, not from 0")
    if values.dtype.kind == "f":
        scales = [1] if brightest <= 1 else [255] if brightest >= MIN_WHITE else []
    else:
        scales = [2**bits - 1 for bits in BIT_DEPTHS]
    scale = next((scale for scale in scales if brightest <= scale), None)
    if scale is None:
        raise ValueError(f"its brightest value is {brightest}, so its scale is unclear")
    return np.rint(values * (255 / scale)).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    pixels = np.asarray(rgba)
    transparent = pixels[..., 3] == 0
    if transparent.all():
        raise ValueError("it is entirely transparent")
    if not transparent.any() or pixels[transparent][:, :3].any():
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
