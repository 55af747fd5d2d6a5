import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningModule

from datamodules import HAM10000, DataError
from datamodules.samplers import ClassBalanced
from datamodules.splits import Balanced
from datamodules.transforms import Augment, Transform
from tests.trainers import quiet_trainer

SPLIT = Balanced(test_images=3, val_images=2)


class Recorder(LightningModule):
    """Record the training batches, and train a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.number

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def attached(data, rank=0, world_size=1):
    """The datamodule on one of several ranks."""
    data.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        global_step=0,
        max_epochs=1,
        limit_train_batches=1.0,
        accumulate_grad_batches=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


@pytest.fixture
def data(lesions):
    return HAM10000(lesions, SPLIT, size=16, batch_size=16, num_workers=0)


def fit(data, **options):
    module = Recorder()
    quiet_trainer(use_distributed_sampler=False, **options).fit(module, data)
    return module.seen


def test_batches_are_floats_on_request_with_maps(lesions):
    data = HAM10000(lesions, SPLIT, size=16, batch_size=16, num_workers=0, mask=True, saliency=True)
    batch = fit(data, max_steps=1)[0]
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {
        "image": (16, 3, 16, 16),
        "mask": (16, 1, 16, 16),
        "saliency": (16, 1, 16, 16),
        "label": (16,),
        "index": (16,),
    }
    assert batch["image"].dtype == torch.float32
    assert 0.2 < batch["image"].max() <= 1
    row = data.table.loc[batch["index"].tolist()]
    assert (row["split"] == "train").all()
    assert row["label"].tolist() == batch["label"].tolist()


def test_same_seed_same_augmented_batches(lesions):
    def run(seed, workers):
        data = HAM10000(
            lesions,
            SPLIT,
            size=16,
            batch_size=16,
            num_workers=workers,
            train_transform=Augment(),
            seed=seed,
        )
        return torch.cat([batch["image"] for batch in fit(data, max_steps=3)])

    first = run(1, workers=0)
    torch.manual_seed(77)  # whatever happened in the process before
    assert torch.equal(run(1, workers=2), first)
    assert not torch.equal(run(2, workers=0), first)


@pytest.mark.parametrize(("takes_8_bit", "dtype"), [(True, torch.uint8), (False, torch.float32)])
def test_transforms_receive_the_pixels_they_take(lesions, takes_8_bit, dtype):
    received = []

    class Spy(Transform):
        def forward(self, batch):
            received.append(batch["image"])
            return batch

    transform = Spy()
    transform.takes_8_bit = takes_8_bit
    data = HAM10000(lesions, SPLIT, size=16, batch_size=16, train_transform=transform)
    served = fit(data, max_steps=1)[0]["image"]
    assert received[0].dtype == dtype
    assert received[0].max() > 0.2
    assert served.dtype == torch.float32
    assert 0.2 < served.max() <= 1


def test_every_image_is_evaluated_exactly_once_on_any_number_of_ranks(data):
    for world_size in (1, 2, 4):
        shares = [
            torch.cat([b["index"] for b in attached(data, r, world_size).val_dataloader()])
            for r in range(world_size)
        ]
        expected = data.table.index[data.table["split"] == "val"].tolist()
        assert sorted(torch.cat(shares).tolist()) == expected
    assert shares[0].tolist() == sorted(shares[0].tolist())


def test_ranks_train_on_disjoint_shares_of_one_order(lesions):
    data = HAM10000(lesions, SPLIT, size=16, batch_size=16, num_workers=0, seed=5)
    one = [b["index"].tolist() for b in attached(data).train_dataloader()]
    two = [
        [b["index"].tolist() for b in attached(data, rank, 2).train_dataloader()]
        for rank in range(2)
    ]
    for whole, *shares in zip(one, *two, strict=True):
        assert sorted(whole) == sorted(i for share in shares for i in share)


@pytest.mark.parametrize(("step", "accumulate"), [(0, 1), (3, 1), (25, 1), (5, 4), (6, 4)])
def test_loader_starts_where_the_run_stands(data, step, accumulate):
    """A resumed run gets the batches of an uninterrupted run."""
    attached(data).trainer.accumulate_grad_batches = accumulate
    per_epoch = len(data.train_dataloader())
    steps = -(-per_epoch // accumulate)
    epoch, within = divmod(step, steps)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    rest = [b["index"].tolist() for b in loader][within * accumulate :]
    data.trainer.global_step = step
    assert [b["index"].tolist() for b in data.train_dataloader()] == rest


def test_melanoma_task_keeps_two_classes(lesions):
    data = HAM10000(lesions, SPLIT, task="melanoma")
    assert data.num_classes == 2
    assert set(data.table["dx"]) == {"nv", "mel"}
    assert data.class_counts == data.class_table.loc[["nv", "mel"], "train"].tolist()
    assert (data.table.loc[data.table["dx"] == "mel", "label"] == 1).all()


def test_tasks_and_splits_share_one_cache(lesions, data):
    attached(data).train_dataloader()
    before = set((lesions / "cache").iterdir())
    other = HAM10000(lesions, Balanced(2, 2, seed=3), task="melanoma", size=16, num_workers=0)
    attached(other).train_dataloader()
    assert set((lesions / "cache").iterdir()) == before


def test_sampler_comes_by_its_class(lesions):
    data = HAM10000(lesions, SPLIT, size=16, num_workers=0, sampler=ClassBalanced)
    labels = torch.cat([b["label"] for b in attached(data).train_dataloader()])
    share = torch.bincount(labels, minlength=7) / len(labels)
    assert (share - 1 / 7).abs().max() < 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 4000}, "do not fill one batch of 4000"),
        ({"batch_size": 15}, "multiple of their number, 2"),
    ],
)
def test_impossible_batches_are_refused(lesions, change, message):
    data = HAM10000(lesions, SPLIT, size=16, num_workers=0, **change)
    with pytest.raises(DataError, match=message):
        attached(data, world_size=2 if change["batch_size"] == 15 else 1).train_dataloader()


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader", "test_dataloader"])
def test_without_a_trainer_loaders_serve_batches_as_documented(lesions, loader):
    data = HAM10000(lesions, SPLIT, size=16, batch_size=16, mask=True, train_transform=Augment())
    data.prepare_data()
    data.setup("validate")
    batch = next(iter(getattr(data, loader)()))
    assert batch["image"].shape == (len(batch["label"]), 3, 16, 16)
    assert batch["image"].dtype == torch.float32
    assert 0.2 < batch["image"].max() <= 1
    expected = data.gather(batch["index"].tolist())
    assert torch.equal(batch["image"], expected["image"])


def test_without_a_trainer_training_is_at_its_start(data):
    """The batches equal the first ones of a full run, in content and number."""
    images = torch.cat([batch["image"] for batch in data.train_dataloader()])
    seen = fit(HAM10000(data.root, SPLIT, size=16, batch_size=16), max_epochs=1)
    assert torch.equal(images, torch.cat([batch["image"] for batch in seen]))


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        ("split", ["splits.Balanced", "splits.KFold", "splits.Official", "splits.Stratified"]),
        ("train_transform", ["transforms.Augment", "views.RandomCrop", "views.Views"]),
        ("sampler", ["samplers.ClassBalanced", "samplers.Natural", "samplers.Paired"]),
    ],
)
def test_help_lists_the_choices_of_this_package_only(monkeypatch, option, choices):
    monkeypatch.setenv("COLUMNS", "1000")
    parser = ArgumentParser()
    parser.add_class_arguments(HAM10000, "data")
    text = parser.format_help()
    assert len(text.splitlines()) < 60
    pattern = rf"(?s)\n  --data\.{option} .*?known subclasses: ([^)]*)\)"
    names = re.search(pattern, text)[1].split(", ")
    assert {f"datamodules.{name}" for name in choices} <= set(names)
    assert not [name for name in names if name.startswith(("torch", "kornia", "timm"))]


def test_dataset_reopens_its_maps_in_a_worker(data):
    dataset = attached(data).train_dataloader().dataset
    assert len(pickle.dumps(dataset)) < 50_000
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[3]["image"], dataset[3]["image"])
