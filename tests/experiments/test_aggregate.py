"""SADE's aggregation: weights against loops, and a transductive run beside its source."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

from callbacks.errors import RunError
from experiments.command_line.cli import run_command
from experiments.compare.runs import read_run
from experiments.use import aggregate
from lightning_modules.networks.aggregation import prediction_stability, stable_weights

GENERATOR = torch.Generator().manual_seed(0)
VIEWS = 2 * torch.randn(2, 3, 40, 7, generator=GENERATOR)
VIEWS[1, 2] = VIEWS[0, 2] + 0.3 * torch.randn(40, 7, generator=GENERATOR)  # the stable expert
TRAINED = Path("runs/probe_sade/seed0")
MADE = Path("runs/made/seed0")


def stability_in_a_loop(views, weight):
    total = 0.0
    for n in range(views.shape[2]):
        pair = []
        for view in views:
            z = [sum(w * view[e, n, c] for e, w in enumerate(weight)) for c in range(7)]
            exponentials = [math.exp(x) for x in z]
            pair.append([x / sum(exponentials) for x in exponentials])
        dot, *squares = (sum(a * b for a, b in zip(x, y, strict=True)) for x, y in (
            pair, pair[:1] * 2, pair[1:] * 2))  # fmt: skip
        total += dot / math.sqrt(squares[0] * squares[1])
    return total / views.shape[2]


@pytest.mark.parametrize("weight", [(1 / 3, 1 / 3, 1 / 3), (0.7, 0.1, 0.2)])
def test_stability_is_the_mean_cosine_of_the_predictions(weight):
    found = prediction_stability(VIEWS.double(), torch.tensor(weight, dtype=torch.float64))
    assert found.item() == pytest.approx(stability_in_a_loop(VIEWS.double(), weight), rel=1e-6)


def test_weights_move_to_the_stable_expert_as_in_a_loop():
    weights = stable_weights(VIEWS, steps=6, batch_size=40)
    logarithm = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    velocity = torch.zeros(3, dtype=torch.float64)
    for _ in range(6):  # Nesterov's momentum with weight decay, ascending
        value = prediction_stability(VIEWS.double(), logarithm.softmax(0))
        gradient = -torch.autograd.grad(value, logarithm)[0] + 5e-4 * logarithm.detach()
        velocity = 0.9 * velocity + gradient
        logarithm = (logarithm.detach() - 0.1 * (gradient + 0.9 * velocity)).requires_grad_()
    torch.testing.assert_close(weights, logarithm.softmax(0).float())
    assert weights.argmax() == 2
    assert weights.sum() == pytest.approx(1)
    before, after = (prediction_stability(VIEWS, w) for w in (torch.ones(3) / 3, weights))
    assert after > before


def test_ascent_is_a_function_of_its_arguments_and_ends_when_an_expert_is_out():
    first, second = (stable_weights(VIEWS, steps=20, batch_size=16) for _ in range(2))
    assert torch.equal(first, second)
    ended, further = (stable_weights(VIEWS, least=least) for least in (0.25, 0.05))
    assert ended.min() < 0.25
    assert further.min() < ended.min()


@pytest.fixture
def trained(lesions):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), "tiny.pth")
    options = (
        "--data.split.test_images=3", "--data.split.val_images=2", "--data.size=32",
        "--data.batch_size=64", "--model.network.encoder.name=test_efficientnet",
        "--model.network.encoder.weights=tiny.pth", "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu", f"--data.root={lesions}",
    )  # fmt: skip
    run_command(["fit", "--config=probe_sade", *options])


def predictions(folder):
    return pd.read_csv(folder / "test_predictions.csv").filter(like="p_")


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_a_transductive_run_stands_beside_its_run(tmp_path, monkeypatch):
    used = (f"--config={TRAINED}/config.yaml", f"--ckpt_path={TRAINED}/best.ckpt")
    run_command(["test", *used])
    mean = predictions(TRAINED)
    aggregate.evaluate(TRAINED, "made", None)
    record = json.loads((MADE / "aggregation.json").read_text())
    assert record["images"] == len(mean) == 21
    assert sum(record["weights"]) == pytest.approx(1)
    # After one epoch both are nearly 1, where they differ by less than the rounding of float32.
    assert record["stability"]["weighted"] >= record["stability"]["mean"] - 1e-6
    results = json.loads((MADE / "results.json").read_text())
    assert results["name"] == "made"
    assert read_run(MADE).parameters == read_run(TRAINED).parameters
    weighted = predictions(MADE)
    run_command(["test", *used])
    np.testing.assert_array_equal(predictions(TRAINED), mean)  # which stays the mean
    aggregate.evaluate(TRAINED, "made", None)
    np.testing.assert_array_equal(predictions(MADE), weighted)

    monkeypatch.setattr(aggregate, "stable_weights", lambda views: torch.ones(3) / 3)
    aggregate.evaluate(TRAINED, "equal", None)
    np.testing.assert_allclose(predictions(Path("runs/equal/seed0")), mean, atol=5e-3)

    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b.png").write_text("not an image")
    aggregate.evaluate(TRAINED, "photos", tmp_path / "photos")
    predicted = pd.read_csv("runs/photos/seed0/predictions.csv")
    assert predicted["decision"].tolist()[1] == "unreadable"
    assert json.loads(Path("runs/photos/seed0/aggregation.json").read_text())["images"] == 1
    with pytest.raises(RunError, match="holds a trained run"):
        aggregate.evaluate(TRAINED, "probe_sade", None)
