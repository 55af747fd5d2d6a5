from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from callbacks.looking.attention_maps import AttentionMaps, MappedImages, first_lesions, measured
from callbacks.looking.heatmap import GAP, TILE, draw_heatmap
from callbacks.recording.metrics_file import read_history
from datamodules.cache import read_image, read_mask
from datamodules.layout import image_files, mask_files
from tests.test_command_line import RUN, use
from tests.test_command_line import fit as plain_fit


def fit(lesions, *more):
    return plain_fit(lesions, "--model.network.drop_rate=0.3", "--trainer.max_epochs=2", *more)


def options(**values):
    return [f"--trainer.callbacks.{name}={value}" for name, value in values.items()]


def validated():
    """Number of lesions in the validation split; all get a figure, at most two per class."""
    return pd.read_csv(RUN / "split.csv").query("split == 'val'")["lesion_id"].nunique()


def drawn(split):
    return len(list((RUN / "attention").glob(f"{split}_*.png")))


def weights():
    return torch.load(RUN / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_with_it_is_the_run_without_it(lesions, tmp_path, monkeypatch):
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path / "plain")
    fit(lesions, "--trainer.log_every_n_steps=1")
    plain, losses = weights(), read_history(RUN / "metrics.jsonl")["train/loss"]
    monkeypatch.chdir(tmp_path)
    every_epoch = options(every_n_epochs=1)
    fit(lesions, "--trainer.log_every_n_steps=1", *every_epoch)
    assert all(torch.equal(value, plain[name]) for name, value in weights().items())
    assert read_history(RUN / "metrics.jsonl")["train/loss"].equals(losses)
    assert validated() == drawn("val")


def test_test_images_are_drawn_and_measured_per_class_and_mistakes_besides(lesions, capsys):
    fit(lesions, *options(images_per_class=1, mistakes=3))
    assert not (RUN / "attention").exists()  # not due before epoch ten
    use("test")
    names = sorted(path.stem for path in (RUN / "attention").iterdir())
    table = pd.read_csv(RUN / "test_predictions.csv").set_index("image_id")
    classes = [name.split("_")[1] for name in names if "mistake" not in name]
    assert classes == sorted(table["dx"].unique())
    probability = table.filter(like="p_")
    wrong = probability.idxmax(axis=1).str.removeprefix("p_") != table["dx"]
    surest = probability[wrong].max(axis=1).sort_values(ascending=False, kind="stable")
    mistakes = [name for name in names if "mistake" in name]
    assert [name.split("_", 2)[2] for name in mistakes] == surest.index[:3].tolist()
    scores = read_history(RUN / "metrics.jsonl").query("kind == 'test'").iloc[-1]
    energies = [scores[f"test/energy_{dx}"] for dx in ("mel", "nv", "bcc", "df")]
    assert all(0 < energy < 1 for energy in energies)
    assert 0 < scores["test/lesion_area"] < 1
    assert "Attention maps: pointing " in capsys.readouterr().out


def test_a_model_without_maps_says_so_and_is_scored_all_the_same(lesions, capsys, monkeypatch):
    fit(lesions, *options())
    monkeypatch.setattr("callbacks.looking.network_attention._tracing_features", refusing)
    use("test")
    assert "No attention maps: This has no feature map." in capsys.readouterr().out
    assert (RUN / "results.json").exists()


def refusing(model: nn.Module):
    from callbacks.errors import RunError

    raise RunError("This has no feature map.")


@pytest.mark.slow
def test_other_processes_wait_for_the_first(lesions):
    ddp = ("--trainer.devices=2", "--trainer.strategy=ddp_fork", "--data.batch_size=20")
    fit(lesions, *ddp, *options(every_n_epochs=1))
    assert validated() == drawn("val")
    history = read_history(RUN / "metrics.jsonl")
    assert history["val/energy"].notna().sum() == 2


def test_the_same_lesions_are_chosen_each_time_one_image_of_each():
    part = pd.DataFrame({"lesion_id": ["a", "a", "b", "c", "d", "e"], "label": [0, 0, 0, 1, 0, 1]})
    assert first_lesions(part, 2).index.tolist() == [0, 2, 3, 5]


def test_gathered_images_and_masks_are_those_of_the_files(lesions):
    data = fit(lesions, "--trainer.fast_dev_run=true").datamodule
    rows = data.table.index[[5, 2, 300]].tolist()
    batch = data.gather(rows)
    for i, image_id in enumerate(data.table.loc[rows, "image_id"]):
        image = read_image(image_files(lesions)[image_id], 32)
        mask = read_mask(mask_files(lesions)[image_id], 32)
        np.testing.assert_array_equal(batch["image"][i].permute(1, 2, 0) * 255, image)
        np.testing.assert_allclose(batch["mask"][i, 0] * 255, mask, rtol=1e-6)
    assert batch["label"].tolist() == data.table.loc[rows, "label"].tolist()


def test_scores_are_means_of_a_class_then_of_the_classes():
    mask = torch.zeros(3, 4, 4)
    mask[:, :2] = 1
    heat = torch.zeros(3, 4, 4)
    heat[0, 0, 0] = heat[1, 3, 3] = heat[2, 0, 0] = 1
    mapped = MappedImages([0, 1, 2], torch.zeros(3, 3, 4, 4), mask, torch.zeros(3, 2), {"m": heat})
    values = measured(mapped, pd.Series(["mel", "mel", "nv"]))
    assert values["pointing_mel"] == values["energy_mel"] == 0.5
    assert values["pointing_nv"] == 1
    assert values["pointing"] == 0.75
    assert values["lesion_area"] == 0.5
    assert measured(mapped._replace(mask=None), pd.Series(["mel", "mel", "nv"])) == {}


def test_heat_is_drawn_where_it_is_and_the_lesion_is_outlined():
    image, mask, heat = torch.full((3, 32, 32), 0.5), torch.zeros(32, 32), torch.zeros(4, 4)
    mask[8:24, 8:24] = 1
    heat[0, 0] = 2
    page = draw_heatmap(image, {"Grad-CAM": heat}, "mel, taken for nv", mask)
    left, right = GAP, GAP + TILE + GAP
    assert page.getpixel((left + TILE // 2, GAP + TILE // 2)) == (128, 128, 128)
    assert page.getpixel((right + TILE // 2, GAP + TILE // 2)) == (128, 128, 128)
    red, _, blue = page.getpixel((right + 5, GAP + 5))
    assert red > blue  # the hot end of the colours
    edge = np.asarray(page)[GAP + TILE // 2, left : left + TILE]
    assert (edge == 255).all(1).sum() == 2  # white where the row enters and leaves the lesion
    plain = draw_heatmap(image, {}, "no mask")
    assert isinstance(plain, Image.Image)
    assert plain.width == TILE + 2 * GAP


def test_nothing_is_drawn_before_the_first_epoch_or_in_a_trial(tmp_path):
    callback = AttentionMaps(every_n_epochs=1, dirpath=str(tmp_path))
    state = SimpleNamespace(fn="fit")
    checking = SimpleNamespace(state=state, sanity_checking=True, current_epoch=0)
    callback.on_validation_end(checking, None)
    trial = SimpleNamespace(
        state=state, sanity_checking=False, current_epoch=0, is_global_zero=True, fast_dev_run=True
    )
    callback.on_validation_end(trial, None)
    assert not list(tmp_path.iterdir())


def test_an_image_id_may_be_a_path(tmp_path):
    looker = AttentionMaps(dirpath=str(tmp_path))
    probability, heat = torch.tensor([[0.9, 0.1]]), {"network": torch.rand(1, 4, 4)}
    mapped = MappedImages([0], torch.rand(1, 3, 8, 8), None, probability, heat)
    table = pd.DataFrame({"image_id": ["acne/0001"], "dx": ["acne"]})
    looker.draw(mapped, SimpleNamespace(table=table, class_names=("acne", "wart")), {0: "val_acne"})
    assert [path.name for path in looker.output.iterdir()] == ["val_acne_acne_0001.png"]
