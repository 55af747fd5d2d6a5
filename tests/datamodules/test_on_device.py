"""Pixels kept on the model's device: the batches, and so the run, are those of the loader."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from datamodules import HAM10000, on_device
from datamodules.errors import DataError
from datamodules.loader import ResumableLoader
from datamodules.on_device import FREE_SHARE, place
from datamodules.splits import Balanced
from experiments.recipes import find
from tests.test_experiments import small_networks
from tests.test_interruptions import Tell, _quick, assert_same_run, fit

__all__ = ["_quick", "small_networks"]  # fixtures

CPU = torch.device("cpu")
GPU = namedtuple("GPU", "type")("cuda")


def loaders(lesions, **options):
    split = Balanced(test_images=3, val_images=2)
    data = HAM10000(lesions, split, size=16, batch_size=8, mask=True, saliency=True, **options)
    data.setup("fit")
    return data.train_dataloader(), data.val_dataloader(), data.test_dataloader()


def test_batches_are_those_of_the_loader(lesions):
    pairs = zip(loaders(lesions), loaders(lesions, on_device=True), strict=True)
    for loaded, placed in pairs:
        assert isinstance(placed.dataset.arrays["image"], torch.Tensor)
        torch.testing.assert_close(list(placed), list(loaded), rtol=0, atol=0)


def test_placed_pixels_need_neither_workers_nor_pinned_memory(lesions):
    train, *_ = loaders(lesions, on_device=True, num_workers=2)
    assert isinstance(train, ResumableLoader)
    assert (train.num_workers, train.pin_memory) == (0, False)


@pytest.mark.usefixtures("small_networks", "_quick")
@pytest.mark.parametrize("recipe", ["spmix", "probe_ce"])
def test_an_interrupted_run_resumes_to_that_of_the_loader(recipe, lesions):
    assert fit(find(recipe), lesions, "loaded") == 0
    more = ["--data.on_device=true"]
    assert fit(find(recipe), lesions, "placed", Tell(2), more=more) == 75
    assert fit(find(recipe), lesions, "placed", more=more) == 0
    assert_same_run("loaded", "placed")


@pytest.mark.parametrize(("free", "copied"), [(4000, True), (3999, False)])
def test_a_gpu_gets_arrays_that_leave_most_of_its_memory_free(monkeypatch, free, copied):
    assert FREE_SHARE == 0.25
    monkeypatch.setattr(on_device, "_free", lambda device: free)
    monkeypatch.setattr(on_device, "_copied", lambda array, device: torch.tensor(array))
    arrays = place({"image": np.zeros((10, 100), np.uint8)}, GPU)
    assert isinstance(arrays["image"], torch.Tensor) == copied


def test_a_cpu_reads_from_the_cache_unless_told_otherwise():
    arrays = {"image": np.zeros((10, 100), np.uint8)}
    assert place(arrays, CPU) is arrays
    assert place(arrays, CPU, wanted=False) is arrays


def test_arrays_are_copied_whole_in_parts():
    array = np.random.default_rng(0).normal(size=(2500, 3)).astype(np.float16)
    copy = place({"image": array}, CPU, wanted=True)["image"]
    assert copy.dtype == torch.float16
    np.testing.assert_array_equal(copy.numpy(), array)


def test_a_device_without_room_is_refused(monkeypatch):
    def full(array, device):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(on_device, "_copied", full)
    with pytest.raises(DataError, match=r"do not fit .* set --data\.on_device=false"):
        place({"image": np.zeros((2, 3))}, CPU, wanted=True)
