"""Tables, figures and warnings about codecs."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader

from callbacks.errors import RunError
from callbacks.looking.collapse import Collapse, lost_parts
from callbacks.looking.reconstructions import Reconstructions
from callbacks.recording.fidelity_table import FidelityTable, per_class
from callbacks.recording.results import Results
from callbacks.recording.wandb_logger import ResilientWandbLogger
from callbacks.stages.start_from import StartFrom
from lightning_modules import CompressedClassifier, Compression
from lightning_modules.codecs import Autoencoder, Codec, Reconstruction
from lightning_modules.losses import RateDistortionLoss
from tests.trainers import quiet_trainer

NAMES = ("mel", "nv")
IMAGE, DIAGNOSIS = "no more of the images than their mean colors", "the same class"


class Half(Codec):
    """A codec that darkens images; its latent consists of the quarters of the image."""

    def reconstruct(self, images):
        return Reconstruction(self.decode(images), latent=nn.functional.avg_pool2d(images, 8))

    def encode(self, images):
        return images

    def decode(self, code):
        return code / 2


class Flat(Codec):
    """A codec whose reconstruction has nothing of the image."""

    def reconstruct(self, images):
        return Reconstruction(self.decode(images))

    def encode(self, images):
        return images

    def decode(self, code):
        return torch.full_like(code, 0.9)


def classifier(codec) -> CompressedClassifier:
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return CompressedClassifier(
        network, nn.CrossEntropyLoss(), optimizer, codec=codec, class_names=NAMES
    )


class Recorder(ResilientWandbLogger):
    """A logger that records media, tags and files."""

    def __init__(self):
        super().__init__(id="run", name="run", group="run", save_dir=".")
        self.media, self.tags, self.files = {}, [], []

    def log_metrics(self, metrics, step=None):
        pass

    def log_media(self, media, step=None):
        self.media |= media

    def add_tag(self, tag):
        self.tags.append(tag)

    def keep_files(self, files, base):
        self.files += files


class Data(LightningDataModule):
    """Images with dark lesions in the middle, all in one batch."""

    seed, synthetic, group = 0, True, "lesion"

    def __init__(self, labels=(0, 1, 1, 1)):
        super().__init__()
        torch.manual_seed(0)
        mask = torch.zeros(len(labels), 1, 32, 32)
        mask[..., 8:24, 8:24] = 1
        images = torch.rand(len(labels), 3, 32, 32)
        index = torch.arange(len(labels)) + 10
        self.batch = {
            "image": torch.where(mask > 0, images * 0.4, images),
            "label": torch.tensor(labels),
            "index": index,
            "mask": mask,
        }
        self.table = pd.DataFrame({"image_id": list("abcd"), "split": "test"}, index=range(10, 14))

    def train_dataloader(self):
        return DataLoader([self.batch], batch_size=None)

    val_dataloader = test_dataloader = train_dataloader


trainer = partial(quiet_trainer, max_epochs=1, num_sanity_val_steps=0)


def test_pictures_are_rows_of_images_by_class(tmp_path):
    callback = Reconstructions(images_per_class=2, latent_channels=2, gain=1.5, dirpath=tmp_path)
    trainer(callback).test(classifier(Half()), Data(), verbose=False)
    drawn = sorted(path.name for path in (tmp_path / "reconstructions").iterdir())
    assert drawn == ["test_mel.png", "test_nv.png"]
    picture = np.asarray(Image.open(tmp_path / "reconstructions" / "test_nv.png")) / 255
    assert picture.shape == (2 + 2 * 34, 2 + 5 * 34, 3)  # two of the three, no more
    cells = [picture[2:34, 2 + 34 * i : 34 + 34 * i] for i in range(5)]
    image = Data().batch["image"][1].permute(1, 2, 0).numpy()
    assert np.allclose(cells[0], image, atol=1 / 255)
    assert np.allclose(cells[1], image / 2, atol=1 / 255)
    assert np.allclose(cells[2], np.minimum(1.5 * image / 2, 1), atol=1 / 255)
    for cell in cells[3:]:
        assert cell.min() == 0
        assert cell.max() == 1
        assert np.array_equal(cell[:8, :8], np.broadcast_to(cell[0, 0], (8, 8, 3)))


def test_pictures_are_drawn_of_a_validation_too(tmp_path):
    codec = Compression(
        Autoencoder(2, width=12),
        RateDistortionLoss(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        class_names=NAMES,
    )
    logger = Recorder()
    trainer(Reconstructions(dirpath=tmp_path), logger=logger).fit(codec, Data())
    assert {path.name for path in (tmp_path / "reconstructions").iterdir()} == {
        "val_mel.png",
        "val_nv.png",
    }
    assert [image._caption for image in logger.media["val/reconstructions"]] == list(NAMES)
    assert codec.codec.training


def test_table_is_the_mean_of_each_class(tmp_path, capsys):
    module = classifier(Half())
    folder, logger = tmp_path / "half" / "seed0", Recorder()
    trainer(FidelityTable(dirpath=folder), logger=logger).test(module, Data(), verbose=False)
    assert "before" in capsys.readouterr().out
    kept = pd.read_csv(folder / "test_fidelity.csv")
    assert kept["image_id"].tolist() == list("abcd")
    assert kept["dx"].tolist() == ["mel", "nv", "nv", "nv"]
    # Half as bright, an image has the contrast that it had.
    assert np.allclose(kept["contrast_after"], kept["contrast_before"], atol=1e-5)
    assert (kept["contrast_before"] > 0.3).all()
    table = per_class(kept, list(NAMES)).set_index("class")
    assert table["images"].tolist() == [1, 3, 4]
    assert table.loc["mel", "psnr"] == kept["psnr"][0]
    assert table.loc["nv", "lesion_psnr"] == pytest.approx(kept["lesion_psnr"][1:].mean())
    assert table.loc["all", "contrast_after"] == pytest.approx(kept["contrast_after"].mean())
    shown = logger.media["test/fidelity"].get_dataframe().set_index("class")
    assert shown.loc["nv", "psnr"] == pytest.approx(table.loc["nv", "psnr"])
    assert logger.files == [folder / "test_fidelity.csv"]


def test_a_run_without_diagnosis_has_results_and_no_predictions(tmp_path):
    codec = Compression(Half(), RateDistortionLoss(), optimizer=None, class_names=NAMES)
    folder = tmp_path / "codec" / "seed0"
    trainer(Results(dirpath=folder)).test(codec, Data(), verbose=False)
    record = json.loads((folder / "results.json").read_text())
    assert record["name"] == "codec"
    assert record["metrics"]["psnr"] > 5
    assert not (folder / "test_predictions.csv").exists()


def test_trials_leave_no_table(tmp_path):
    trainer(FidelityTable(dirpath=tmp_path)).test(classifier(Half()), Data((0, 1)), verbose=False)
    assert not (tmp_path / "test_fidelity.csv").exists()


def test_classes_without_images_and_measures_without_values_do_not_break_the_table():
    measured = pd.DataFrame({"dx": ["nv"], "psnr": [30.0], "ssim": [0.9], "mae": [0.1]})
    for name in ("lesion_psnr", "contrast_before", "contrast_after"):
        measured[name] = float("nan")
    table = per_class(measured, list(NAMES))
    assert table["images"].tolist() == [0, 1, 1]
    assert list(table) == ["class", "images", "psnr", "ssim", "mae"]


@pytest.mark.parametrize(
    ("codec", "after", "said"),
    [
        (Half(), 0, []),
        (Flat(), 0, [IMAGE, DIAGNOSIS]),
        (Flat(), 1, []),
    ],
    ids=["healthy", "collapsed", "too early to say"],
)
def test_collapse_is_detected_and_said(capsys, codec, after, said):
    module = classifier(codec)
    module.network[2].weight.data = torch.tensor([[0.0, 0.0, 0.0], [40.0, 40.0, 40.0]])
    images = Data().batch["image"] / 2
    module.network[2].bias.data = torch.tensor([40 * images.mean((2, 3)).sum(1).mean(), 0.0])
    module.network.requires_grad_(False)
    logger = Recorder()
    run = trainer(Collapse(after), logger=logger)
    run.fit(module, Data())
    out = capsys.readouterr().out
    assert ("COLLAPSE in epoch 0" in out) == bool(said)
    assert all(part in out for part in said)
    assert run.callback_metrics["val/collapsed"] == bool(said)
    assert logger.tags == ["collapsed"] * bool(said)


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("diagnosis", [True, False])
def test_image_and_diagnosis_are_lost_each_by_itself(image, diagnosis):
    given = [[0, 3], [0, 5]] if diagnosis else [[1, 2], [0, 5]]
    lost = lost_parts({"explained": -0.1 if image else 0.4, "confusion": torch.tensor(given)})
    assert [(IMAGE in one, DIAGNOSIS in one) for one in lost] == (
        [(True, False)] * image + [(False, True)] * diagnosis
    )


class Any(LightningModule):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def test_codec_and_network_come_from_their_runs(tmp_path):
    trained = {"codec": nn.Linear(2, 2), "network": nn.Linear(3, 3)}
    for name, part in trained.items():
        state = {f"network.{key}": value for key, value in part.state_dict().items()}
        (tmp_path / name).mkdir()
        torch.save({"state_dict": state}, tmp_path / name / "best.ckpt")
    module = Any(codec=nn.Linear(2, 2), network=nn.Linear(3, 3))
    run = SimpleNamespace(ckpt_path=None, fast_dev_run=False)
    StartFrom(codec=tmp_path / "codec").setup(run, module, "fit")
    assert torch.equal(module.codec.weight, trained["codec"].weight)
    assert not torch.equal(module.network.weight, trained["network"].weight)
    StartFrom(network=tmp_path / "network").setup(run, module, "fit")
    assert torch.equal(module.network.weight, trained["network"].weight)
    with pytest.raises(RunError, match="train that run first"):
        StartFrom(codec=tmp_path / "none").setup(run, module, "fit")


@pytest.mark.parametrize(
    ("callback", "module", "lacks"),
    [
        (Collapse(), nn.Identity(), "codec"),
        (FidelityTable(), nn.Identity(), "codec"),
        (Reconstructions(), nn.Identity(), "codec"),
        (Collapse(), SimpleNamespace(codec=Half()), "classify"),
    ],
)
def test_models_without_what_they_look_at_are_refused(callback, module, lacks):
    with pytest.raises(RunError, match=f"no {lacks}, which {type(callback).__name__} needs"):
        callback.setup(None, module, "fit")
