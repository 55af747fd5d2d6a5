"""A probe is trained on encoded images, and used like any other run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

from callbacks.errors import RunError
from callbacks.recording.metrics_file import read_history
from experiments import load
from experiments.command_line.cli import run_command
from experiments.use import ensemble, export
from lightning_modules import ModelError

RUN = Path("runs/probe_ce/seed0")
USED = (f"--config={RUN}/config.yaml", f"--ckpt_path={RUN}/best.ckpt")


@pytest.fixture
def weights():
    for seed, file in enumerate(("tiny.pth", "other.pth")):
        torch.manual_seed(seed)
        model = timm.create_model("test_efficientnet")
        with torch.no_grad():  # statistics of batch norms, so that its outputs vary
            for _ in range(30):
                model(torch.rand(32, 3, 32, 32) * torch.rand(32, 3, 1, 1))
        torch.save(model.state_dict(), file)


def fit(lesions, *more, name="probe_ce", recipe="probe_ce", epochs=2):
    options = (
        "--data.split.test_images=3", "--data.split.val_images=2", "--data.size=32",
        "--data.batch_size=64", "--model.network.encoder.name=test_efficientnet",
        "--model.network.encoder.weights=tiny.pth", f"--trainer.max_epochs={epochs}",
        "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1",
        "--trainer.accelerator=cpu", f"--data.root={lesions}", f"--name={name}",
    )  # fmt: skip
    return run_command(["fit", f"--config={recipe}", *options, *more])


def predictions(folder=RUN):
    return pd.read_csv(folder / "test_predictions.csv").filter(like="p_")


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11's export
def test_a_probe_of_encoded_images_is_one_of_their_pixels(lesions, tmp_path):
    fit(lesions)
    fit(lesions, "--data.encoded=false", name="pixels")
    losses = [
        read_history(Path("runs", name, "seed0", "metrics.jsonl"))["train/loss"].dropna()
        for name in ("probe_ce", "pixels")
    ]
    np.testing.assert_allclose(*losses, atol=5e-3)
    assert losses[0].std() > 0.1
    assert "network.digest" in (state := torch.load(RUN / "last.ckpt")["state_dict"])
    assert not [key for key in state if "encoder" in key]

    run_command(["test", *USED, f"--data.cache_dir={tmp_path / 'elsewhere'}"])
    encoded = predictions()
    (made,) = (tmp_path / "elsewhere").glob("encoded-*.npy")  # of the images as they are
    assert made.name.endswith("-0.npy")
    run_command(["test", *USED, "--data.encoded=false"])
    np.testing.assert_allclose(encoded, predictions(), atol=5e-3)
    assert encoded.std().max() > 0.1
    ensemble.evaluate([RUN], "one", 1, None)
    np.testing.assert_allclose(predictions(Path("runs/one/seed0")), predictions(), atol=1e-5)

    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "a.png")
    run_command(["predict", *USED, f"--data.predict_folder={tmp_path / 'photos'}"])
    predicted = pd.read_csv(RUN / "predictions.csv").filter(like="p_")
    np.testing.assert_allclose(load(RUN).probabilities([photo]), predicted, atol=1e-5)
    pytest.importorskip("onnxscript")
    export.export(RUN, tmp_path / "exported")  # checks what it writes
    files = [path.name for path in (tmp_path / "exported").iterdir()]
    assert sorted(files) == ["model.onnx", "model.pt2"]


@pytest.mark.usefixtures("weights")
def test_a_probe_resumes_to_what_it_would_have_been(lesions):
    step = (
        "--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint",
        "--trainer.callbacks.filename=step",
        "--trainer.callbacks.every_n_train_steps=7",  # in the middle of the second epoch
        "--trainer.callbacks.enable_version_counter=false",
        "--trainer.callbacks.save_top_k=1",
    )
    fit(lesions, *step)
    whole = torch.load(RUN / "last.ckpt")["state_dict"]
    for file in ("last.ckpt", "previous.ckpt", "best.ckpt"):
        (RUN / file).unlink(missing_ok=True)
    fit(lesions, *step)
    resumed = torch.load(RUN / "last.ckpt")["state_dict"]
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    fit_steps = read_history(RUN / "metrics.jsonl")
    assert fit_steps["attempt"].max() == 2


@pytest.mark.usefixtures("weights")
def test_another_encoder_or_none_is_refused(lesions):
    fit(lesions, epochs=1)
    with pytest.raises(ModelError, match="weights of the encoder are not those"):
        run_command(["test", *USED, "--model.network.encoder.weights=other.pth"])
    Path("tiny.pth").unlink()
    for use in (lambda: load(RUN), lambda: run_command(["test", *USED])):
        with pytest.raises((ModelError, RunError, ValueError)) as refused:
            use()
        assert "tiny.pth does not exist" in str(refused.value)


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("recipe", ["probe_ncm", "probe_knn"])
def test_class_means_and_neighbors_are_gathered_in_one_epoch(lesions, recipe):
    cli = fit(lesions, recipe=recipe, name=recipe, epochs=1)
    folder = Path("runs", recipe, "seed0")
    run_command(["test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/best.ckpt"])
    if recipe == "probe_knn":
        assert len(cli.model.network.head.bank) == cli.datamodule.batches_per_epoch * 64
    photo = np.zeros((32, 32, 3), np.uint8)
    assert load(folder).probabilities([photo]).sum() == pytest.approx(1, abs=1e-5)
