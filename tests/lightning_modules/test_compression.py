from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from callbacks.stages.freeze import Freeze
from experiments.command_line.cli import run_command
from lightning_modules import (
    Classifier,
    CompressedClassifier,
    Compression,
    LatentClassifier,
    ModelError,
)
from lightning_modules.codecs import Autoencoder, Codec, KMeans, Reconstruction, ScaleHyperprior
from lightning_modules.losses import RateDistortionLoss
from lightning_modules.networks import LatentResNet
from tests.trainers import quiet_trainer

NAMES = ("mel", "nv", "bcc")
ROOT = Path(__file__).parents[2]


class Identity(Codec):
    """A lossless codec."""

    def reconstruct(self, images):
        return Reconstruction(images)

    def encode(self, images):
        return images

    decode = encode


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def autoencoder() -> Autoencoder:
    return Autoencoder(latent_channels=2, width=12)


def compressed(codec, kind=CompressedClassifier, classifier=None, **options):
    optimizer = partial(torch.optim.SGD, lr=0.1)
    classifier = classifier or network()
    loss = nn.CrossEntropyLoss()
    return kind(classifier, loss, optimizer, codec=codec, class_names=NAMES, **options)


def batches(n: int = 3):
    generator = torch.Generator().manual_seed(0)
    for i in range(n):
        yield {
            "image": torch.rand(6, 3, 32, 32, generator=generator),
            "label": torch.arange(6) % 3,
            "index": torch.arange(6 * i, 6 * i + 6),
        }


trainer = partial(quiet_trainer, max_epochs=1, num_sanity_val_steps=0)


def loader():
    return DataLoader(list(batches()), batch_size=None)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, module):
    after = module.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def silent(module):
    module.log = module.log_dict = lambda *_, **__: None
    return module


@pytest.mark.parametrize("codec", [autoencoder, partial(KMeans, 4)], ids=["learned", "fixed"])
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_another_precision_is_refused(codec, precision):
    run, module = trainer(precision=precision), compressed(codec())
    for use in (partial(run.fit, val_dataloaders=loader()), run.validate, run.predict):
        with pytest.raises(ModelError, match="32-true or bf16-mixed"):
            use(module, loader())


def test_what_has_nothing_to_train_is_refused():
    with pytest.raises(ModelError, match="frozen or fixed"):
        Compression(KMeans(4), RateDistortionLoss(), optimizer=None).configure_optimizers()
    module = compressed(KMeans(4)).requires_grad_(False)
    module.trainer = SimpleNamespace(world_size=2, precision="32-true")
    module.setup("test")
    with pytest.raises(ModelError, match="trainer.devices"):
        module.setup("fit")
    module.trainer = SimpleNamespace(world_size=1, precision="16-mixed")
    with pytest.raises(ModelError, match="no gradients to scale"):
        module.setup("fit")


def test_a_codec_that_loses_nothing_changes_no_diagnosis():
    torch.manual_seed(0)
    plain = Classifier(network(), nn.CrossEntropyLoss(), None, class_names=NAMES)
    through = compressed(Identity(), classifier=plain.network)
    reported = []
    for module in (plain, through):
        run = trainer()
        run.validate(module, loader(), verbose=False)
        reported.append(run.callback_metrics)
    assert reported[0].items() <= reported[1].items()
    assert reported[1]["val/psnr"] == pytest.approx(100)


def test_frozen_classifier_is_bit_identical_after_the_codec_was_trained_through_it():
    module = compressed(autoencoder(), reconstruction=RateDistortionLoss())
    classifier, codec = state(module.network), state(module.codec)
    trainer(Freeze(["network"]), max_epochs=2).fit(module, loader(), loader())
    assert not changed(classifier, module.network)  # its batch norm and its dropout included
    assert changed(codec, module.codec) == codec.keys()


def test_gradient_reaches_the_encoder_through_a_frozen_classifier():
    module = silent(compressed(autoencoder()))
    module.network.requires_grad_(False).eval()
    for block in (module.codec.g_a[2], module.codec.g_s[1]):
        nn.init.normal_(block.second.weight)  # no longer at the start, where it hides the first
    module.training_step(next(batches()), 0).backward()
    assert all(p.grad.abs().sum() > 0 for p in module.codec.g_a.parameters())
    assert all(p.grad is None for p in module.network.parameters())


@pytest.mark.parametrize("codec", [autoencoder(), ScaleHyperprior(12, 4)], ids=["values", "bits"])
def test_frozen_codec_stays_and_the_classifier_is_trained(codec):
    module = compressed(codec)
    for coder in codec.buffers():
        coder += 1  # as if computed on another machine, whose streams must remain readable
    codec, classifier = state(module.codec), state(module.network)
    trainer(Freeze(["codec"])).fit(module, loader(), loader())
    assert not changed(codec, module.codec)
    assert changed(classifier, module.network) == classifier.keys()


@pytest.mark.parametrize("codec", [KMeans(4), autoencoder()], ids=["kmeans", "autoencoder"])
def test_a_run_with_nothing_to_train_comes_to_its_validation(codec):
    module = compressed(codec)
    before, run = state(module), trainer(Freeze(["codec", "network"]))
    run.fit(module, loader(), loader())
    assert not changed(before, module)
    assert run.global_step == 3
    assert {"val/balanced_accuracy", "val/psnr"} <= run.callback_metrics.keys()


def test_joint_loss_is_classification_distortion_and_rate():
    torch.manual_seed(0)
    codec = ScaleHyperprior(width=12, latent_channels=4)
    weights = RateDistortionLoss(nn.MSELoss(), distortion_weight=3.0, rate_weight=0.5)
    module = silent(compressed(codec, reconstruction=weights))
    module.network.eval()
    batch = next(batches())
    torch.manual_seed(1)
    loss = module.training_step(batch, 0)
    torch.manual_seed(1)
    seen = codec(batch["image"])
    expected = F.cross_entropy(module.network(seen.image), batch["label"])
    expected += 3 * ((seen.image - batch["image"]) ** 2).mean()
    expected += 0.5 * seen.bits.mean() / 32**2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_rate_distortion_without_rate_is_the_distortion():
    image, seen = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    mae = (seen - image).abs().mean()
    assert RateDistortionLoss()(image, Reconstruction(seen)) == mae
    assert RateDistortionLoss(distortion_weight=0)(image, Reconstruction(seen)) == 0
    with pytest.raises(ModelError, match="does not count bits"):
        RateDistortionLoss(rate_weight=1)(image, Reconstruction(seen))


def test_classification_from_the_latent_does_not_decode():
    codec = autoencoder()
    module = silent(
        compressed(codec, LatentClassifier, nn.Sequential(nn.Flatten(), nn.Linear(128, 3)))
    )
    batch = next(batches())
    decoded = module.classify(codec(batch["image"]))
    codec.decode = None  # would fail
    assert torch.equal(module(batch["image"]), decoded)
    assert torch.equal(module(batch["image"]), module.network(codec.encode(batch["image"])))
    module.training_step(batch, 0).backward()


def test_a_codec_without_latent_is_refused():
    module = compressed(KMeans(2), LatentClassifier)
    with pytest.raises(ModelError, match="no latent to classify"):
        module.evaluate(next(batches()), "val")


def test_latent_resnet_begins_where_the_latent_is():
    network = LatentResNet("test_resnet", latent_channels=5, pretrained=False, num_classes=4)
    latent = torch.rand(2, 5, 16, 16)
    assert network(latent).shape == (2, 4)
    from_image = network.model.layer1[0].conv1
    shapes = []
    from_image.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape[2:]))
    network(latent)
    assert shapes == [(16, 16)]
    with pytest.raises(ModelError, match="test_vit has no stem of a ResNet"):
        LatentResNet("test_vit", latent_channels=5, pretrained=False)


def codec_module(codec, **loss):
    optimizer = partial(torch.optim.Adam, lr=1e-2)
    criterion = RateDistortionLoss(**loss)
    return Compression(codec, criterion, optimizer=optimizer, class_names=NAMES)


def test_codec_learns_and_reports_what_it_leaves():
    torch.manual_seed(0)
    module = codec_module(ScaleHyperprior(width=12, latent_channels=8), rate_weight=0.1)
    values = []
    for epochs in (1, 6):
        run = trainer(max_epochs=epochs)
        run.fit(module, loader(), loader())
        values.append(run.callback_metrics)
    names = {"train/loss", "val/loss", "val/psnr", "val/ssim", "val/ms_ssim", "val/mae"}
    assert names | {"val/bits_per_pixel"} <= values[1].keys()
    assert values[1]["val/loss"] < values[0]["val/loss"]


def test_coder_is_made_ready_by_a_fit_and_left_alone_later():
    """Otherwise other machines could not read streams written after training."""
    module = codec_module(ScaleHyperprior(width=12, latent_channels=8), rate_weight=0.1)
    table = module.codec.prior.table.clone()
    trainer(max_epochs=2).fit(module, loader(), loader())
    fitted = module.codec.prior.table.clone()
    assert not torch.equal(fitted, table)
    module.codec.prior.biases[0].data += 1.0
    trainer().validate(module, loader(), verbose=False)
    assert torch.equal(module.codec.prior.table, fitted)


def test_a_codec_predicts_no_classes():
    with pytest.raises(ModelError, match="does not predict classes"):
        codec_module(autoencoder()).predict_step(next(batches()), 0)


def test_a_codec_run_goes_on_as_if_it_had_never_stopped(lesions):
    """With noise in every step and a coder in the checkpoint."""
    options = [
        "--config=codec_hyperprior",
        f"--data.root={lesions}",
        "--data.size=32",
        "--model.codec.width=12",
        "--model.codec.latent_channels=8",
        "--model.lr_scheduler=null",
        "--data.mask=false",
        "--trainer.limit_train_batches=3",
        "--trainer.limit_val_batches=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]
    for name, epochs in (("whole", 2), ("halves", 1), ("halves", 2)):
        run_command(["fit", *options, f"--name={name}", f"--trainer.max_epochs={epochs}"])
    whole, halves = (
        torch.load(f"runs/{name}/seed0/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "halves")
    )
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
