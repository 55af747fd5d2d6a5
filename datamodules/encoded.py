"""Encoded images: outputs of a frozen encoder, computed once and kept as float16 memory maps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from datamodules.cache import user_cache
from datamodules.errors import DataError
from datamodules.lesion_dataset import Arrays, LesionDataset, channels_first, take
from datamodules.memory_map import memory_map
from datamodules.progress import track
from datamodules.transforms import ORIENTATIONS, RandomOrientation, Transform, orient

VERSION = 1  # in every key; increase it when the encoding of an image changes
BATCH_SIZE = 32  # images that are encoded at once


@runtime_checkable
class FrozenEncoder(Protocol):
    """A network with a frozen part, as :class:`~lightning_modules.networks.Probe` is.

    Attributes:
        encoder_key: Text that differs between encoders with different outputs.
    """

    encoder_key: str

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to the outputs (B, ...) of the frozen part."""

    def to(self, device: torch.device) -> Any:
        """Move the network to a device."""


def frozen_encoder(trainer: Trainer | None) -> FrozenEncoder:
    """The network with a frozen encoder in the module that is trained or evaluated.

    Raises:
        DataError: There is none.
    """
    module = trainer.lightning_module if trainer else nn.Identity()
    for network in module.modules():
        if isinstance(network, FrozenEncoder):
            return network
    raise DataError(
        "data.encoded serves the outputs of a frozen encoder, which this network does not have: "
        "set --data.encoded=false, or --model.network=lightning_modules.networks.Probe."
    )


def orientations_of(transform: Transform | None, maps: bool) -> int:
    """The number of orientations that the transform of encoded training images chooses from.

    Args:
        transform: Transform of the training batches.
        maps: Whether batches are to hold masks or saliency.

    Raises:
        DataError: An option needs pixels.
    """
    if isinstance(transform, RandomOrientation) and not maps:
        return transform.number
    raise DataError(
        "Encoded images have no pixels to augment, and neither masks nor saliency: set "
        "--data.train_transform=datamodules.transforms.RandomOrientation, --data.mask=false and "
        "--data.saliency=false, or --data.encoded=false."
    )


def encoded_arrays(
    pixels: np.ndarray,
    encoder: FrozenEncoder,
    device: torch.device,
    cache_dir: Path | None = None,
    orientations: int = ORIENTATIONS,
) -> dict[str, np.ndarray]:
    """Outputs of a frozen encoder for cached images, one array (N, ...) of each orientation.

    Args:
        pixels: Memory map of the images, (N, H, W, 3) uint8.
        encoder: Encoder of the images.
        device: Device to compute on.
        cache_dir: Folder of the arrays. By default that of ``pixels``, or
            :func:`~datamodules.cache.user_cache` if that is not writable.
        orientations: Number of orientations.

    Raises:
        DataError: No folder is writable, the disk is too full, or the images are in shards.
    """
    if not isinstance(pixels, np.ndarray):
        raise DataError("Images in shards cannot be encoded in advance: set --data.encoded=false.")
    source = Path(str(pixels.filename))  # type: ignore[attr-defined]
    folder = cache_dir.expanduser() if cache_dir else source.parent
    made_from = f"{VERSION}\n{source.name}\n{encoder.encoder_key}"
    name = f"encoded-{pixels.shape[1]}-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"
    encoder.to(device)
    shape = tuple(_encode(encoder, pixels[:1], 0, device).shape[1:])
    return {
        str(number): memory_map(
            folder,
            f"{name}-{number}.npy",
            (len(pixels), *shape),
            np.float16,
            partial(
                _fill,
                pixels=pixels,
                encoder=encoder,
                device=device,
                number=number,
                title=f"Encoding images, orientation {number + 1} of {orientations}",
            ),
            None if cache_dir else user_cache(),
        )
        for number in range(orientations)
    }


def _fill(
    rows: np.ndarray,
    pixels: np.ndarray,
    encoder: FrozenEncoder,
    device: torch.device,
    number: int,
    title: str,
) -> None:
    def work() -> Iterator[int]:
        for start in range(0, len(rows), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            rows[part] = _encode(encoder, pixels[part], number, device).cpu().numpy()
            yield from range(*part.indices(len(rows)))

    for _ in track(work(), title, len(rows)):
        pass


@torch.no_grad()
def _encode(
    encoder: FrozenEncoder, pixels: np.ndarray, number: int, device: torch.device
) -> Tensor:
    images = channels_first(torch.tensor(pixels)).to(device).float().div_(255)
    return encoder.encode(orient(images, number)).half()


class EncodedDataset(LesionDataset):
    """Images of one split as outputs of a frozen encoder, in V orientations or as they are.

    An item is a dict: ``image`` (V, ...) or (...), float16, ``label`` and ``index``.

    Args:
        arrays: Array (N, ...) of each orientation, from :func:`encoded_arrays`.
        table: Images of the split, with their ``row`` in the arrays and their ``label``.
        oriented: Whether to serve all orientations, as for training, or that of the image itself.
    """

    def __init__(self, arrays: Arrays, table: pd.DataFrame, oriented: bool) -> None:
        super().__init__(arrays if oriented else {"0": arrays["0"]}, table)
        self.oriented = oriented

    def fetch(self, rows: np.ndarray) -> Mapping[str, Tensor]:
        orientations = [take(array, rows) for array in self.arrays.values()]
        return {"image": torch.stack(orientations, 1) if self.oriented else orientations[0]}
