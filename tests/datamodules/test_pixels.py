"""One image in many formats, and files that are not 8-bit images."""

import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from datamodules import pixels
from datamodules.pixels import is_photo, read_inside, read_rgb, reason

HEIGHT, WIDTH = 48, 64


def lesion():
    """A dark lesion on light skin that every flip or turn changes."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = 1 / (1 + np.exp((np.hypot((x - 24) / 16, (y - 20) / 12) - 1) * 9))[..., None]
    return (np.array([222, 176, 158]) * (1 - inside) + np.array([96, 58, 44]) * inside).astype(
        np.uint8
    )


RGB = lesion()
GRAY = np.asarray(Image.fromarray(RGB).convert("L"))
WIDE = GRAY.astype(np.uint16) * 257
DEEP = RGB.astype(np.uint16)[..., ::-1] * 257


def difference(path, expected):
    read = read_rgb(path)
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    assert read.shape == expected.shape
    assert read.dtype == np.uint8
    return np.abs(read.astype(int) - expected).mean()


@pytest.mark.parametrize(
    "ending",
    ["png", "JPG", "jfif", "jpe", "gif", "bmp", "dib", "tif", "TIFF", "webp", "avif", "ppm",
     "tga", "jp2", "ico", "pcx", "sgi", "qoi", "mpo", "apng"],
)  # fmt: skip
def test_formats_that_pillow_decodes(tmp_path, ending):
    path = tmp_path / f"photo.{ending}"
    options = {"ico": {"sizes": [(WIDTH, HEIGHT)]}, "webp": {"lossless": True}}
    Image.fromarray(RGB).save(path, **options.get(ending, {}))
    assert is_photo(path)
    assert difference(path, RGB) < 4


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "YCbCr", "P", "L", "LA", "1"])
@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_modes(tmp_path, mode, ending):
    image = Image.fromarray(RGB)
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    path = tmp_path / f"a.{ending}"
    try:
        image.save(path, quality=98)
    except OSError:
        pytest.skip(f"{ending} holds no {mode}")
    expected = {"L": GRAY, "LA": GRAY, "1": np.asarray(image) * np.uint8(255)}.get(mode, RGB)
    assert difference(path, expected) < 5


@pytest.mark.parametrize("ending", ["png", "tif", "jp2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_gray_of_any_depth(tmp_path, ending, bits):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(WIDE >> (16 - bits)).save(path)
    assert difference(path, GRAY) < 1


def test_gray_in_which_white_is_zero(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(65535 - WIDE).save(path, tiffinfo={262: 0})
    assert difference(path, GRAY) < 1


@pytest.mark.parametrize("scale", [1, 255])
def test_gray_in_floating_point(tmp_path, scale):
    path = tmp_path / "a.tif"
    Image.fromarray((GRAY / 255 * scale).astype(np.float32)).save(path)
    assert difference(path, GRAY) < 1


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colours_of_16_bits(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    cv2.imwrite(str(path), DEEP)
    assert difference(path, RGB) < 1
    cv2.imwrite(str(path), DEEP >> 4)  # 12 bits of a camera, of which Pillow keeps four
    with pytest.raises(ValueError, match="less than a quarter"):
        read_rgb(path)


@pytest.mark.parametrize("values", [GRAY - 130.0, GRAY * 1e3, GRAY / 100, np.full((8, 8), np.nan)])
def test_numbers_without_a_scale_are_unreadable(tmp_path, values):
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"its (values|brightest)"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_are_upright(tmp_path, ending, orientation):
    stored = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    image = Image.fromarray(RGB)
    for how in stored.get(orientation, []):
        image = image.transpose(how)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{ending}", exif=exif)
    assert difference(tmp_path / f"a.{ending}", RGB) < 4


@pytest.mark.parametrize("alpha", [0, 1, 128, 255])
def test_transparent_pixels_keep_their_colour(tmp_path, alpha):
    around = np.full((HEIGHT, WIDTH), 255, np.uint8)
    around[:8] = alpha
    image = Image.fromarray(RGB)
    image.putalpha(Image.fromarray(around))
    image.save(tmp_path / "a.png")
    assert difference(tmp_path / "a.png", RGB) == 0


def test_erased_pixels_are_white(tmp_path):
    erased = np.dstack([RGB, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    erased[:8] = 0
    Image.fromarray(erased).save(tmp_path / "a.png")
    expected = RGB.copy()
    expected[:8] = 255
    assert difference(tmp_path / "a.png", expected) == 0
    Image.fromarray(erased * 0).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="transparent"):
        read_rgb(tmp_path / "a.png")


def test_a_palette_with_a_transparent_colour(tmp_path):
    Image.fromarray(RGB).quantize(64).save(tmp_path / "a.png", transparency=0)
    assert difference(tmp_path / "a.png", RGB) < 4


def test_huge_pictures_are_refused_without_a_warning(tmp_path, monkeypatch):
    Image.new("1", (11_000, 10_000)).save(tmp_path / "large.png")
    monkeypatch.setattr(pixels, "MAX_PIXELS", 10**8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="110 megapixels, but at most 100 are supported"):
            read_rgb(tmp_path / "large.png")


INSIDE = np.zeros((HEIGHT, WIDTH), dtype=bool)
INSIDE[10:30, 12:40] = True
MASK = INSIDE.astype(np.uint8)


def palette_mask(colours):
    image = Image.frombytes("P", (WIDTH, HEIGHT), MASK.tobytes())
    image.putpalette(colours)
    return image


def noisy(draw):
    return np.clip(MASK * 255.0 + draw.normal(0, 12, MASK.shape), 0, 255).astype(np.uint8)


MASKS = {
    "0 and 1": Image.fromarray(MASK),
    "0 and 255": Image.fromarray(MASK * 255),
    "1 bit": Image.fromarray(INSIDE),
    "16 bits": Image.fromarray(MASK * np.uint16(65535)),
    "16 bits, 0 and 1": Image.fromarray(MASK * np.uint16(1)),
    "floating point": Image.fromarray(MASK * np.float32(1)),
    "white palette": palette_mask([0, 0, 0, 255, 255, 255]),
    "red palette": palette_mask([0, 0, 0, 128, 0, 0]),
    "blue palette": palette_mask([0, 0, 0, 0, 0, 255]),
    "colour": Image.fromarray(np.repeat(MASK[..., None] * np.uint8(255), 3, axis=2)),
    "noise": Image.fromarray(noisy(np.random.default_rng(0))),
    "black on nothing": Image.fromarray(np.dstack([MASK * 0] * 3 + [MASK * np.uint8(255)])),
    "white on nothing": Image.fromarray(np.dstack([MASK * 0 + 255] * 3 + [MASK * np.uint8(255)])),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_any_kind_are_the_same(tmp_path, kind):
    path = tmp_path / ("a.tif" if kind == "floating point" else "a.png")
    MASKS[kind].save(path)
    assert np.array_equal(read_inside(path), MASK * 255)


def test_a_mask_with_the_noise_of_a_jpeg(tmp_path):
    Image.fromarray(MASK * 255).save(tmp_path / "a.jpg", quality=60)
    assert (read_inside(tmp_path / "a.jpg") == MASK * 255).mean() > 0.99
    assert set(np.unique(read_inside(tmp_path / "a.jpg"))) == {0, 255}


def test_a_mask_without_a_lesion(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert not read_inside(tmp_path / "a.png").any()


def test_what_is_no_mask_is_refused(tmp_path):
    Image.new("L", (8, 8), 7).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="brightest value is 7"):
        read_inside(tmp_path / "a.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="entirely transparent"):
        read_inside(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jpg", b"", "an empty file"),
        ("a.png", b"no image", "not an image of a known format"),
        ("a.webp", b"RIFF\x10\0\0\0WEBPVP8 ", None),
    ],
)
def test_reasons(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Exception) as error:  # noqa: PT011
        read_rgb(path)
    assert reason(path, error.value)
    assert expected in (reason(path, error.value), None)


@pytest.mark.parametrize("kind", ["EPS", "PDF"])
def test_nothing_is_started_to_decode_a_file(tmp_path, kind):
    Image.fromarray(RGB).save(tmp_path / f"a.{kind.lower()}")
    assert not is_photo(tmp_path / f"a.{kind.lower()}")
    with pytest.raises(OSError, match="cannot identify"):
        read_rgb(tmp_path / f"a.{kind.lower()}")
