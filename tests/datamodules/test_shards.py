"""Lesions in object storage: the same data, order and resuming as from a folder."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from datamodules import DataError, LesionData
from datamodules.samplers import Bilateral, ClassAware, ClassBalanced, Natural, Paired
from datamodules.shard_order import ShardOrder
from datamodules.shards import shard
from datamodules.splits import KFold, Stratified
from datamodules.transforms import Augment
from tests.own_data import DISEASES, describe, draw
from tests.s3_server import serving

SHARD = 8 * 16 * 16 * 3  # bytes of pixels
URL = "s3://bucket/lesions"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A data set, and the objects of its shards on a server."""
    root = draw(tmp_path_factory.mktemp("drawn") / "mine")
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        shard(root, URL, size=16, split=Stratified(), images=8)
        yield SimpleNamespace(root=root, server=server)


@pytest.fixture
def stored(drawn):
    objects = dict(drawn.server.objects)
    drawn.server.requests.clear()
    yield drawn
    drawn.server.objects = objects


@pytest.fixture
def streamed(stored, tmp_path):
    def make(split=None, cache_gb=1.0, **options):
        write(tmp_path / "streamed", shards=URL, cache_gb=cache_gb)
        options = {"size": 16, "batch_size": 8, "num_workers": 0} | options
        return LesionData(tmp_path / "streamed", split or Stratified(), **options)

    return make


def write(root, **description):
    root.mkdir(exist_ok=True)
    (root / "dataset.yaml").write_text(yaml.safe_dump(description))


def from_folder(stored, split=None, **options):
    options = {"size": 16, "batch_size": 8, "num_workers": 0} | options
    return LesionData(stored.root, split or Stratified(), **options)


def at_step(data, step, rank=0, world_size=1):
    data.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        global_step=step,
        max_epochs=4,
        limit_train_batches=1.0,
        accumulate_grad_batches=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


def same(batches, others):
    batches, others = list(batches), list(others)
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        assert all(torch.equal(batch[name], other[name]) for name in batch)


@pytest.mark.parametrize("split", [Stratified(), KFold(3, 1)])
@pytest.mark.parametrize("sampler", [Natural, ClassBalanced, Paired])
def test_batches_are_those_of_the_folder(stored, streamed, split, sampler):
    ours = streamed(split, mask=True, sampler=sampler)
    folder = from_folder(stored, split, mask=True, sampler=sampler)
    columns = ["image_id", "lesion_id", "dx", "label", "split", "age", "sex"]
    pd.testing.assert_frame_equal(ours.table[columns], folder.table[columns])
    assert ours.class_counts == folder.class_counts
    assert ours.classes == folder.classes
    for data in (ours, folder):
        data.prepare_data()
    same(ours.train_dataloader(), folder.train_dataloader())
    same(ours.val_dataloader(), folder.val_dataloader())
    same(ours.test_dataloader(), folder.test_dataloader())
    same([ours.gather([5, 0])], [folder.gather([5, 0])])


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("step", [0, 3, 11])
def test_a_run_resumes_within_an_epoch(streamed, window, step):
    data = at_step(streamed(window=window, seed=3, train_transform=Augment()), 0)
    epoch, within = divmod(step, len(data.train_dataloader()))
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    rest = list(loader)[within:]
    same(at_step(data, step).train_dataloader(), rest)


def test_ranks_share_each_batch(streamed):
    one, *two = (
        list(at_step(streamed(window=2), 0, rank, size).train_dataloader())
        for rank, size in ((0, 1), (0, 2), (1, 2))
    )
    for whole, *shares in zip(one, *two, strict=True):
        parts = torch.cat([part["index"] for part in shares])
        assert sorted(whole["index"].tolist()) == sorted(parts.tolist())


@pytest.mark.slow
def test_loading_processes_serve_the_same(streamed):
    same(
        streamed(num_workers=1, window=2).train_dataloader(),
        streamed(window=2).train_dataloader(),
    )


def test_evaluation_reads_only_shards_of_its_split(stored, streamed):
    data = streamed()
    list(data.val_dataloader())
    images = int((data.table["split"] == "val").sum())
    read = [path for command, path in stored.server.requests if "/image-" in path]
    assert len(read) <= images // 8 + 2 < len(data.table) // 8


def test_each_shard_is_downloaded_once(stored, streamed):
    for _ in range(2):
        list(streamed().train_dataloader())
    assert (
        max(stored.server.requests[key] for key in stored.server.requests if "npy" in key[1]) == 1
    )


def test_few_shards_fit_into_a_small_cache(stored, streamed, tmp_path):
    data = streamed(window=2, cache_gb=4 * (SHARD + 128) / 1e9)
    small = list(data.train_dataloader())
    assert 1 <= len(list((tmp_path / "streamed/cache").rglob("image-*/*.npy"))) <= 4
    same(small, streamed(window=2, cache_dir=tmp_path / "large").train_dataloader())
    assert len(list((tmp_path / "large").rglob("image-*/*.npy"))) > 4


def test_the_order_of_an_epoch_needs_few_shards_at_a_time():
    shards = np.repeat(np.arange(50), 20)
    for inner in (Natural(np.zeros(1000)), ClassBalanced(np.arange(1000) % 3)):
        order = ShardOrder(inner, shards, window=4)
        order.place(seed=2, epoch=1)
        expected = list(inner)
        assert sorted(order) == sorted(expected)
        assert list(order) != expected
        shown = shards[list(order)]
        spans = [len(np.unique(shown[at : at + 20])) for at in range(0, 980, 20)]
        assert 3 <= np.mean(spans) <= 6
        lasts = {s: np.flatnonzero(shown == s) for s in np.unique(shown)}
        assert max(np.ptp(at) for at in lasts.values()) < 2 * 4 * 20


@pytest.mark.parametrize("sampler", [Paired, Bilateral, ClassAware])
def test_an_order_with_a_meaning_is_not_changed(streamed, sampler):
    with pytest.raises(DataError, match=f"fixed by {sampler.__name__}: set data.window=null"):
        streamed(sampler=sampler, window=2).train_dataloader()


def test_an_interrupted_command_resumes(stored):
    names = [name for name in stored.server.objects if name.endswith(".npy")]
    del stored.server.objects[names[3]]
    content = dict(stored.server.objects)
    shard(stored.root, URL, size=16, split=Stratified(), images=8)
    written = [path for command, path in stored.server.requests if command == "PUT"]
    assert [path for path in written if path.endswith(".npy")] == [names[3]]
    assert {name: stored.server.objects[name] for name in content} == content


def test_shards_of_another_length_are_others(drawn, tmp_path):
    for images in (43, 26):  # whose second shards have 26 images each
        shard(drawn.root, str(tmp_path / "shards"), size=16, images=images)
    ours = LesionData(tmp_path / "shards", Stratified(), size=16, batch_size=8, num_workers=0)
    same(ours.train_dataloader(), from_folder(drawn).train_dataloader())


def test_unreadable_images_are_named_and_shards_stay_incomplete(tmp_path):
    root = draw(tmp_path / "mine")
    (root / "pictures" / "0003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"(?s)1 of \d+ image files.*0003"):
        shard(root, str(tmp_path / "shards"), size=8)
    write(tmp_path / "streamed", shards=str(tmp_path / "shards"))
    with pytest.raises(DataError, match="dataset.yaml cannot be read"):
        _ = LesionData(tmp_path / "streamed", Stratified()).table


def test_shards_in_a_local_folder(drawn, tmp_path):
    root = tmp_path / "mine"
    shutil.copytree(drawn.root, root, ignore=shutil.ignore_patterns("cache"))
    describe(root, classes=DISEASES, shots={"many": 20, "few": 10}, tasks={"red": DISEASES[:2]})
    shard(root, str(tmp_path / "shards"), size=16, saliency=True)
    options = {"size": 16, "batch_size": 8, "task": "red", "saliency": True}
    ours = LesionData(tmp_path / "shards", Stratified(), **options)
    folder = LesionData(root, Stratified(), **options)
    assert ours.shots == folder.shots
    assert not ours.synthetic
    same(ours.train_dataloader(), folder.train_dataloader())
    assert not list((tmp_path / "shards" / "cache").glob("table*"))  # nothing is copied


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 32}, "has images of 16 pixels: set data.size=16"),
        ({"saliency": True}, "has no saliency for every image, only image, mask"),
        ({"window": 0}, "data.window=0: set at least 1 shard"),
    ],
)
def test_options_that_do_not_fit(streamed, options, said):
    with pytest.raises(DataError, match=said):
        next(iter(streamed(**options).train_dataloader()))


def test_a_window_is_for_shards(drawn):
    with pytest.raises(DataError, match="data.window is for images in shards"):
        from_folder(drawn, window=2).train_dataloader()
