"""Cost of methods compared with a step of cross-entropy, and time of saliency maps."""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from torch import nn

from datamodules.cache import cached_arrays
from datamodules.release import Release
from datamodules.saliency import fine_grained_saliency
from lightning_modules import CARE, Classifier, losses, mixes
from lightning_modules.networks import TimmNetwork
from tests.benchmarks.loading import Data
from tests.benchmarks.step import NAME, optimizer
from tests.benchmarks.timing import in_turns

SIZE, BATCH, STEPS = 64, 64, 3
NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
COUNTS = [1053, 6645, 454, 267, 1039, 55, 82]  # training images of the balanced split


def bench_methods(data: Data) -> list[dict]:
    """Time steps on one batch in memory, with mask and saliency, relative to cross-entropy.

    Mixes of pairs have a batch of twice as many images, whose augmentation is not included.
    """
    cross_entropy = nn.CrossEntropyLoss()
    inverse, effective = losses.InverseFrequency(), losses.EffectiveNumber()
    criteria = {
        "cross-entropy": cross_entropy,
        "focal": losses.FocalLoss(),
        "CB": losses.CrossEntropyLoss(weights=inverse, class_counts=COUNTS),
        "ES": losses.CrossEntropyLoss(weights=effective, class_counts=COUNTS),
        "SPL": losses.SelfPacedLoss(),
        "OHEM": losses.OHEMLoss(),
        "logit adjusted": losses.LogitAdjustedLoss(COUNTS),
        "soft F1": losses.SoftMacroF1Loss(),
    }
    modules = {name: classifier(criterion) for name, criterion in criteria.items()}
    modules |= {
        mix.__name__: classifier(cross_entropy, mix=mix(num_classes=len(NAMES)))
        for mix in (mixes.Mixup, mixes.CutMix, mixes.SaliencyMix)
    }
    modules["Remix"] = classifier(cross_entropy, mix=mixes.Remix(COUNTS))
    modules["CARE"] = classifier(cross_entropy, CARE)
    batch, of_pairs = example(), example(2 * BATCH)
    ways = {name: steps(module, batch) for name, module in modules.items()}
    for mix in (mixes.CMO(probability=1.0), mixes.BalancedMixup()):
        ways[type(mix).__name__] = steps(classifier(cross_entropy, mix=mix), of_pairs)
    return in_turns(ways, rounds=15)


def bench_losses(data: Data) -> list[dict]:
    """Time losses alone, forward and backward on logits of 64 images, relative to cross-entropy."""
    effective = {"weights": losses.EffectiveNumber(), "class_counts": COUNTS}
    criteria = {
        "cross-entropy": losses.CrossEntropyLoss(),
        "weighted": losses.CrossEntropyLoss(**effective),
        "logit adjusted": losses.LogitAdjustedLoss(COUNTS),
        "VS": losses.VSLoss(COUNTS),
        "GCL": losses.GCLLoss(COUNTS),
        "LDAM": losses.LDAMLoss(COUNTS),
        "focal": losses.FocalLoss(),
        "sigmoid focal": losses.SigmoidFocalLoss(**effective),
        "seesaw": losses.SeesawLoss(COUNTS),
        "LADE": losses.LADELoss(COUNTS),
    }
    logits = torch.randn(BATCH, len(NAMES), requires_grad=True)
    label = example()["label"]

    def run(criterion: nn.Module) -> int:
        for _ in range(20):
            criterion(logits, label).backward()
        return 20 * BATCH

    return in_turns({name: partial(run, each) for name, each in criteria.items()}, rounds=15)


def classifier(
    criterion: nn.Module, kind: type[Classifier] = Classifier, **options: object
) -> Classifier:
    torch.manual_seed(0)
    network = TimmNetwork(NAME, num_classes=len(NAMES), pretrained=False)
    return kind(network, criterion, optimizer, class_names=NAMES, **options)


def example(images: int = BATCH) -> dict[str, torch.Tensor]:
    """A batch with the class frequencies of the training split."""
    torch.manual_seed(0)
    image = torch.rand(images, 3, SIZE, SIZE)
    mask = torch.zeros(images, 1, SIZE, SIZE)
    mask[..., 16:48, 16:48] = 1
    return {
        "image": image,
        "mask": mask,
        "saliency": fine_grained_saliency((image * 255).byte()).float() / 255,
        "label": torch.multinomial(torch.tensor(COUNTS).float(), images, replacement=True),
        "index": torch.arange(images),
    }


def steps(module: Classifier, batch: dict[str, torch.Tensor]) -> Callable[[], int]:
    module.log = lambda *_, **__: None
    module.train()
    updates = optimizer(module.parameters())

    def run() -> int:
        for i in range(STEPS):
            updates.zero_grad()
            module.training_step(batch, i).backward()
            updates.step()
        return STEPS * BATCH

    return run


def bench_saliency(data: Data) -> list[dict]:
    """Saliency of 32 images of 224 pixels: batched here, one by one in OpenCV contrib.

    OpenCV contrib cannot be installed beside the OpenCV that the project needs. To measure it:
    ``pip install --target contrib opencv-contrib-python-headless`` and
    ``PYTHONPATH=contrib make bench ARGS=saliency``.
    """
    arrays = cached_arrays(Release(data.small), "ham10000", 224)
    images = torch.from_numpy(np.array(arrays["image"][:32])).movedim(3, 1)

    def batched() -> int:
        return len(fine_grained_saliency(images))

    def one_by_one() -> int:
        reference = cv2.saliency.StaticSaliencyFineGrained.create()
        for image in images:
            reference.computeSaliency(image.permute(1, 2, 0).numpy()[..., ::-1].copy())
        return len(images)

    ways = {"batched": batched}
    return in_turns(ways | ({"OpenCV contrib": one_by_one} if hasattr(cv2, "saliency") else {}))
