"""Drawing of synthetic skin lesions, with looks that are typical of each class."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from datamodules.classes import CLASSES

# The typical look of each class. Lengths are in units of the lesion's radius, and the radius in
# units of the picture's height; colors are RGB.
# fmt: off
LOOKS = {
    # CLASSES:      mel       nv        bcc       akiec     bkl       df        vasc
    "radius":      (0.32,     0.22,     0.27,     0.31,     0.29,     0.27,     0.18),
    "irregular":   (0.18,     0.05,     0.10,     0.14,     0.09,     0.05,     0.08),  # outline
    "ragged":      (0.09,     0.05,     0.08,     0.20,     0.03,     0.06,     0.03),  # border
    "soft":        (0.18,     0.22,     0.35,     0.60,     0.07,     0.60,     0.10),  # border
    "opacity":     (0.92,     0.88,     0.80,     0.72,     0.85,     0.75,     0.93),
    "mottle":      (0.90,     0.30,     0.50,     0.60,     0.55,     0.30,     0.50),  # patches
    "veil":        (0.45,     0.40,     0.35,     0.10,     0.05,     0.85,     0.20),  # center
    "network":     (0.30,     0.25,     0.00,     0.05,     0.15,     0.20,     0.00),
    "dots":        (10,       5,        5,        34,       20,       1,        9),
    "dot_radius":  (0.07,     0.04,     0.10,     0.055,    0.045,    0.05,     0.22),
    "vessels":     (0,        0,        9,        3,        0,        0,        1),
}
COLORS = {
    "body":        (0x6E412C, 0x8A5238, 0xD88488, 0xC4685E, 0xA87A58, 0xA66C54, 0xA8243E),
    "patch":       (0x1E1618, 0x6A3A28, 0xC06070, 0xDCA088, 0x6E4E38, 0x8A5242, 0x4A1A4A),
    "center":      (0x7E8CA6, 0x5A3222, 0xE8B8B4, 0xD88C80, 0x9A7450, 0xECCABC, 0x7A1838),
    "dot":         (0x17100F, 0x4A2A1E, 0x5E5C6E, 0xF2E6DC, 0xEEDDBE, 0xE8D0C0, 0x6A0E2C),
}
# fmt: on
TONES = (0xE0A89C, 0xD0829A, 0xE4D2CC, 0xA89298, 0xDC8C78, 0xC8A888)  # of skin, as photographed
VESSEL = 0xB02838
HAIR = 0x2A1C18
GLINT = 0xFFFFFF


class Artist:
    """Draw a lesion and the skin around it, with any number of images of the same lesion.

    Args:
        rng: Source of all randomness.
        label: Class of the lesion, as an index of ``CLASSES``.
        width: Width of the pictures, in pixels; their height is three quarters of it.
    """

    def __init__(self, rng: np.random.Generator, label: int, width: int) -> None:
        self.rng = rng
        self.shape = (width * 3 // 4, width)
        # Looks vary and tend to that of another class, because some real lesions are deceptive.
        other = rng.integers(len(CLASSES))
        mix = 0.7 * rng.beta(0.8, 2.0)
        classes = np.eye(len(CLASSES))
        weights = (1 - mix) * classes[label] + mix * classes[other]
        self.look = {k: float(weights @ v * np.exp(rng.normal(0, 0.2))) for k, v in LOOKS.items()}
        self.colors = {k: _f32(weights @ _rgb(*v) * rng.normal(1, 0.1)) for k, v in COLORS.items()}
        self.tone = _f32(rng.dirichlet([0.4] * len(TONES)) @ _rgb(*TONES))
        self.canvas = self._canvas(self.look["radius"] * self.shape[0])

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """A picture (H, W, 3) and its mask (H, W), uint8; pose, light and hair vary."""
        middle = len(self.canvas) / 2
        angle, zoom = self.rng.uniform((0, 0.8), (360, 1.25))
        turn = _f32(cv2.getRotationMatrix2D((middle, middle), angle, zoom))
        turn[:, 2] += self.rng.normal(0.5, 0.04, 2) * self.shape[::-1] - middle
        lesion = _f32(cv2.warpAffine(self.canvas, turn, self.shape[::-1]))
        picture = _over(self._skin(), self.look["opacity"] * lesion[..., 3], lesion[..., :3])
        picture = np.clip(255 * self._photograph(picture), 0, 255).astype(np.uint8)
        return picture, 255 * (lesion[..., 3] > 0.5).astype(np.uint8)

    def _canvas(self, unit: float) -> np.ndarray:
        """The lesion from above, (S, S, 4): its colors and its opacity, in [0, 1]."""
        look = self.look
        colors = self.colors
        side = int(3.2 * unit) + 2
        noise = partial(self._noise, (side, side), unit)
        y, x = np.mgrid[:side, :side].astype(np.float32) / unit - 1.6
        depth = self._outline(np.arctan2(y, x)) - np.hypot(x, y) + look["ragged"] * noise(0.08)
        shift = 2 * look["irregular"] * self.rng.standard_normal(2, np.float32)
        veil = np.exp(-((x - shift[0]) ** 2 + (y - shift[1]) ** 2) / 0.35 + 0.3 * noise(0.1))
        layers = (
            (look["mottle"] / (1 + np.exp(-5 * noise(0.18))), colors["patch"]),
            (look["veil"] * veil, colors["center"]),
            (look["network"] * (1 - 1.5 * abs(noise(0.035))), 0.4 * colors["body"]),
            (0.25 * noise(0.12), self.tone),  # the skin that shows through
            (self._dots(side, unit) * (0.8 + 0.3 * noise(0.04)), colors["dot"]),
            (0.8 * self._curves((side, side), look["vessels"], 0.7 * unit), _rgb(VESSEL)),
        )
        picture = colors["body"] * (1 + 0.05 * noise(0.07) + 0.05 * noise(0.02))[..., None]
        for alpha, color in layers:
            picture = _over(picture, alpha, color)
        light = 0.6 + 0.4 * self.tone / _rgb(*TONES).mean(0)  # falls on skin and lesion alike
        return np.dstack([light * picture, np.clip(depth / look["soft"] + 0.5, 0, 1)])

    def _noise(self, shape: tuple[int, int], unit: float, scale: float) -> np.ndarray:
        """Smooth noise with mean 0 and standard deviation 1, in spots of ``scale`` units."""
        noise = self.rng.standard_normal(shape, np.float32)
        noise = _f32(cv2.GaussianBlur(noise, (0, 0), max(scale * unit, 0.3)))
        return _f32((noise - noise.mean()) / noise.std())

    def _outline(self, angle: np.ndarray) -> np.ndarray:
        """The distance of the border from the center in each direction, about 1."""
        outline = np.ones_like(angle)
        for k in range(2, 9):
            size = 2 * self.look["irregular"] / k * self.rng.normal()
            outline += size * np.cos(k * angle + self.rng.uniform(0, 7))
        return outline

    def _dots(self, side: int, unit: float) -> np.ndarray:
        alpha = np.zeros((side, side), np.uint8)
        for _ in range(round(self.look["dots"])):
            x, y = (16 * (side / 2 + unit * self.rng.normal(0, 0.42, 2))).astype(int).tolist()
            radius = unit * self.look["dot_radius"] * self.rng.uniform(0.5, 1.3)
            cv2.circle(alpha, (x, y), int(16 * radius), 255, -1, cv2.LINE_AA, 4)
        return _f32(cv2.GaussianBlur(alpha, (0, 0), 0.02 * unit + 0.3) / 255)

    def _curves(self, shape: tuple[int, int], count: float, length: float) -> np.ndarray:
        """The coverage by curved strokes, in [0, 1]."""
        alpha = np.zeros(shape, np.uint8)
        for _ in range(round(count)):
            angle = self.rng.uniform(0, 7) + self.rng.normal(0, 0.8) * np.linspace(0, 1, 12)
            steps = np.stack([np.cos(angle), np.sin(angle)], 1) * self.rng.uniform(0.02, 0.1)
            path = self.rng.uniform(0.1, 0.9, 2) * shape[::-1] + length * steps.cumsum(0)
            ink = int(self.rng.integers(120, 255))
            cv2.polylines(alpha, [(16 * path).astype(np.int32)], False, ink, 1, cv2.LINE_AA, 4)
        return _f32(alpha / 255)

    def _skin(self) -> np.ndarray:
        noise = partial(self._noise, self.shape, self.shape[0])
        skin = self.tone * (1 + 0.03 * noise(0.1) + 0.025 * noise(0.01))[..., None]
        skin = _over(skin, 0.2 * noise(0.05), self.tone * _f32([1.0, 0.8, 0.82]))  # flushed skin
        freckles = 0.35 * np.clip(noise(0.03) - self.rng.uniform(1.2, 3), 0, 1)
        return _over(skin, freckles, self.tone * _f32([0.75, 0.55, 0.45]))

    def _photograph(self, picture: np.ndarray) -> np.ndarray:
        """Add hair, glints of the gel, light, and the dark corners of some dermatoscopes."""
        rng = self.rng
        height, width = self.shape
        hairs = rng.uniform(2, 20) if rng.random() < 0.25 else 0
        picture = _over(picture, 0.7 * self._curves(self.shape, hairs, height), _rgb(HAIR))
        glints = self._noise(self.shape, height, 0.008) - rng.uniform(2.5, 6)
        picture = _over(picture, glints, _rgb(GLINT))
        y, x = np.mgrid[:height, :width].astype(np.float32) / height - 0.5
        r = np.hypot(x - x.mean(), y)
        light = (1 - 0.15 * r**2) * (1 + rng.normal(0, 0.1) * y)
        if rng.random() < 0.3:
            light *= np.clip((rng.uniform(0.58, 0.8) - r) / 0.04, 0.03, 1)
        tint = _f32(rng.normal(1.05, 0.06) * rng.normal(1, 0.03, 3))
        grain = 0.01 * rng.standard_normal(self.shape, np.float32)
        return _f32(picture * light[..., None] * tint + grain[..., None])


def _over(picture: np.ndarray, alpha: np.ndarray, color: np.ndarray) -> np.ndarray:
    return _f32(picture + np.clip(alpha, 0, 1)[..., None] * (color - picture))


def _rgb(*codes: int) -> np.ndarray:
    return _f32([[(code >> shift & 255) / 255 for shift in (16, 8, 0)] for code in codes])


def _f32(values: npt.ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)
