"""Classifiers that start from the mean features of the classes."""

import pytest
import torch
import torch.nn.functional as F

from callbacks.errors import RunError
from callbacks.stages.class_means import ClassMeans
from tests.test_command_line import fit

# Nothing moves in training, so that the weights are those of its start.
STILL = (
    "--model.network.name=test_vit",
    "--model.optimizer.lr=0",
    "--trainer.limit_train_batches=1",
    "--trainer.limit_val_batches=1",
    "--trainer.callbacks+=callbacks.ClassMeans",
)


def mean_features(cli, images):
    """Mean of each class's features, one image at a time."""
    table = cli.datamodule.table
    network = cli.model.network.eval()
    for label in range(7):
        rows = table[(table["split"] == "train") & (table["label"] == label)].index.tolist()
        assert len(rows) <= images
        with torch.no_grad():
            each = [network.encode(cli.datamodule.gather([row])["image"]) for row in rows]
        yield torch.cat(each).mean(0)


def test_weights_are_the_mean_features_of_the_training_images(lesions):
    cli = fit(lesions, *STILL, "--trainer.callbacks.images=1000")
    head = cli.model.network.model.head
    expected = F.normalize(torch.stack(list(mean_features(cli, 1000))), dim=1)
    torch.testing.assert_close(head.weight.detach(), expected, atol=1e-5, rtol=1e-4)
    assert not head.bias.any()
    of_two = [
        ClassMeans(images=2).means(cli.trainer, cli.model, *head.weight.shape)[0] for _ in "ab"
    ]
    assert torch.equal(*of_two)  # drawn by the seed
    assert not torch.allclose(F.normalize(of_two[0], dim=1), expected)


def test_a_classifier_that_is_not_there_is_named(lesions):
    with pytest.raises(RunError, match="Classifier has no network.head: correct"):
        fit(lesions, *STILL, "--trainer.callbacks.classifier=network.head")
