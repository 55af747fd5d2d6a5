"""SimSiam: loss against the paper in a loop, stop-gradient, collapse, and a classifier from it."""

import json
import math
from pathlib import Path

import pytest
import torch

from callbacks.errors import RunError
from callbacks.recording.metrics_file import read_history
from datamodules.views import RandomCrop, Views
from experiments import load
from experiments.command_line.cli import run_command
from experiments.compare.runs import read_run
from lightning_modules import ModelError, SimSiam
from lightning_modules.networks import SimSiamNetwork, TimmNetwork
from lightning_modules.simsiam import negative_cosine, spread

FIRST = Path("runs/simsiam_stage1/seed0")


def network(name: str = "test_resnet") -> SimSiamNetwork:
    torch.manual_seed(0)
    return SimSiamNetwork(TimmNetwork(name, pretrained=False), embedding=32, hidden=8)


def module(**options) -> SimSiam:
    simsiam = SimSiam(network(), optimizer=None, **options)
    simsiam.log_dict = lambda values: logged.update(values)
    logged.clear()
    return simsiam


logged: dict[str, torch.Tensor] = {}


def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    images = {"image": torch.rand(6, 3, 32, 32), "label": torch.zeros(6), "index": torch.arange(6)}
    return Views([RandomCrop(), RandomCrop(gray=0.2)])(images)


def cosine(a: list[float], b: list[float]) -> float:
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms


def test_loss_is_that_of_the_paper_in_a_loop():
    simsiam = module()
    images = batch()["image"]
    f, h = simsiam.network, simsiam.network.predictor
    z1, z2 = f(images[:6]), f(images[6:])
    p1, p2 = h(z1), h(z2)
    total = 0.0
    for i in range(6):
        total += -0.5 * cosine(p1[i].tolist(), z2[i].tolist())
        total += -0.5 * cosine(p2[i].tolist(), z1[i].tolist())
    loss = module().training_step(batch(), 0)
    assert loss.item() == pytest.approx(total / 6, abs=1e-5)
    assert logged["train/loss"] == loss
    assert logged["train/spread"] == spread(z1.detach())


def test_targets_have_no_gradient():
    simsiam = module()
    simsiam.training_step(batch(), 0).backward()
    found = [p.grad for p in simsiam.network.parameters()]
    again = module()
    images, targets = batch()["image"], []
    for part in (images[:6], images[6:]):
        targets.append(again.network(part))
    constants = [z.detach().clone() for z in targets]  # the same targets, as plain numbers
    predicted = [again.network.predictor(z) for z in targets]
    cosines = torch.cosine_similarity
    losses = -cosines(predicted[0], constants[1]) - cosines(predicted[1], constants[0])
    (losses.mean() / 2).backward()
    for gradient, parameter in zip(found, again.network.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-6)
    p, z = torch.rand(4, 3, requires_grad=True), torch.rand(4, 3, requires_grad=True)
    negative_cosine(p, z).sum().backward()
    assert p.grad.any()
    assert z.grad is None


def test_networks_are_the_published_ones():
    layers = [type(layer).__name__ for layer in network().projector]
    assert layers == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert not network().projector[-1].affine
    predictor = network().predictor
    assert [type(layer).__name__ for layer in predictor] == [*layers[:3], "Linear"]
    assert (predictor[0].out_features, predictor[0].bias) == (8, None)
    assert predictor[-1].bias is not None


def test_spread_is_0_in_a_collapse_and_1_for_a_gaussian():
    direction = torch.rand(1, 64)
    assert spread(torch.rand(100, 1) * direction) == pytest.approx(0, abs=1e-4)
    gaussian = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert spread(gaussian) == pytest.approx(1, abs=0.02)
    rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in gaussian[:9].tolist()]
    deviations = []
    for column in zip(*rows, strict=True):
        mean = sum(column) / 9
        deviations.append(math.sqrt(sum((x - mean) ** 2 for x in column) / 9))
    assert spread(gaussian[:9]).item() == pytest.approx(sum(deviations) / 64 * 8, rel=1e-5)


def test_one_view_and_prediction_are_refused():
    images = {"image": torch.rand(4, 3, 32, 32), "index": torch.arange(4)}
    with pytest.raises(ModelError, match="compares 2 views"):
        module().training_step(images, 0)
    with pytest.raises(ModelError, match="without classes"):
        module().predict_step(images, 0)


SMALL = (
    "--data.split.test_images=3", "--data.split.val_images=2", "--data.size=32",
    "--data.batch_size=64", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--model.network.encoder.name=test_efficientnet", "--trainer.log_every_n_steps=1",
    "--model.network.encoder.pretrained=false",
)  # fmt: skip


def fit(recipe: str, lesions: Path, *more: str):
    return run_command(["fit", f"--config={recipe}", f"--data.root={lesions}", *SMALL, *more])


@pytest.mark.slow
def test_a_classifier_starts_from_a_run_without_labels_which_resumes_exactly(lesions):
    first = (
        "--model.network.embedding=32", "--model.network.hidden=8", "--trainer.max_epochs=2",
        "--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint",
        "--trainer.callbacks.filename=step", "--trainer.callbacks.every_n_train_steps=7",
        "--trainer.callbacks.enable_version_counter=false", "--trainer.callbacks.save_top_k=1",
    )  # fmt: skip
    fit("simsiam_stage1", lesions, *first)
    whole = torch.load(FIRST / "last.ckpt")["state_dict"]
    kept = torch.load(FIRST / "best.ckpt")
    assert kept["epoch"] == 1  # the last epoch is the best
    history = read_history(FIRST / "metrics.jsonl")
    assert history["train/spread"].dropna().between(0.3, 1.01).all()
    for file in ("last.ckpt", "previous.ckpt", "best.ckpt"):
        (FIRST / file).unlink(missing_ok=True)
    fit("simsiam_stage1", lesions, *first)  # from within the second epoch
    resumed = torch.load(FIRST / "last.ckpt")["state_dict"]
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert read_history(FIRST / "metrics.jsonl")["attempt"].max() == 2

    run_command(["test", f"--config={FIRST}/config.yaml", f"--ckpt_path={FIRST}/best.ckpt"])
    results = json.loads((FIRST / "results.json").read_text())
    assert set(results["metrics"]) == {"spread"}
    with pytest.raises(RunError, match="only classifiers can be compared"):
        read_run(FIRST)
    with pytest.raises(RunError, match="trained an encoder, which has no classes"):
        load(FIRST)

    second = fit("simsiam_stage2", lesions, "--trainer.max_epochs=1", "--model.optimizer.lr=0")
    trained = second.model.network.encoder.state_dict()
    encoder = {k: v for k, v in whole.items() if k.startswith("network.encoder.")}
    for key, value in encoder.items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(trained[key.removeprefix("network.encoder.")], value)
    folder = Path("runs/simsiam_stage2/seed0")
    run_command(["test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/best.ckpt"])
    assert "balanced_accuracy" in json.loads((folder / "results.json").read_text())["metrics"]

    file = TimmNetwork("test_efficientnet", weights=FIRST / "last.ckpt")  # as any recipe can
    assert torch.equal(file.model.conv_stem.weight, whole["network.encoder.model.conv_stem.weight"])
