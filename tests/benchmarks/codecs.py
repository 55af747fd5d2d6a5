"""Speed of codecs: images to codes, and codes to images."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from datamodules.cache import cached_arrays
from datamodules.release import Release
from lightning_modules.codecs import JPEG, Autoencoder, KMeans, ScaleHyperprior, WebP
from lightning_modules.codecs.codec import Codec
from tests.benchmarks.loading import Data
from tests.benchmarks.timing import in_turns

SIZE, IMAGES = 128, 32


def lesions(data: Data) -> Tensor:
    arrays = cached_arrays(Release(data.large), "ham10000", SIZE)
    return torch.from_numpy(np.array(arrays["image"][:IMAGES])).movedim(3, 1).float() / 255


def codecs() -> dict[str, Codec]:
    """Codecs at 6x, except the hyperprior, whose untrained weights have no meaningful rate."""
    return {
        "k-means, k = 16": KMeans(16).eval(),
        "JPEG, 4 bits a pixel": JPEG(bits_per_pixel=4).eval(),
        "JPEG, quality 75": JPEG(quality=75).eval(),
        "WebP, 4 bits a pixel": WebP(bits_per_pixel=4).eval(),
        "autoencoder": Autoencoder(8).eval(),
        "hyperprior, latent": ScaleHyperprior().eval(),
    }


@torch.no_grad()
def bench_encoding(data: Data) -> list[dict]:
    """Encode 32 images of 128 pixels; the quality of files is found by bisection."""
    images = lesions(data)
    ways = {name: encoding(codec, images) for name, codec in codecs().items()}
    hyperprior = ScaleHyperprior().eval()
    return in_turns(ways | {"hyperprior, streams": lambda: len(hyperprior.compress(images))}, 3)


def encoding(codec: Codec, images: Tensor) -> Callable[[], int]:
    def way() -> int:
        codec.encode(images)
        return len(images)

    return way


@torch.no_grad()
def bench_decoding(data: Data) -> list[dict]:
    """Decode the codes of 32 images of 128 pixels."""
    images, hyperprior = lesions(data), ScaleHyperprior().eval()
    streams = hyperprior.compress(images)
    ways = {name: decoding(codec, codec.encode(images)) for name, codec in codecs().items()}
    return in_turns(ways | {"hyperprior, streams": lambda: len(hyperprior.decompress(streams))}, 3)


def decoding(codec: Codec, code: object) -> Callable[[], int]:
    return lambda: len(codec.decode(code))
