"""Codecs: images to a code and back."""

from lightning_modules.codecs.autoencoder import Autoencoder, EdgeFilter
from lightning_modules.codecs.codec import Codec, Reconstruction
from lightning_modules.codecs.hyperprior import ScaleHyperprior
from lightning_modules.codecs.image_files import JPEG, WebP
from lightning_modules.codecs.kmeans import KMeans

__all__ = [
    "JPEG",
    "Autoencoder",
    "Codec",
    "EdgeFilter",
    "KMeans",
    "Reconstruction",
    "ScaleHyperprior",
    "WebP",
]
