import math
from functools import partial

import pytest
import torch
from jsonargparse._parameter_resolvers import get_signature_parameters as get_parameters
from torch import nn
from torch.utils.data import DataLoader

from lightning_modules import (
    BBN,
    BCL,
    CARE,
    Classifier,
    Compression,
    ModelError,
    PaCo,
    ResLT,
    SupCon,
)
from lightning_modules.schedules import Steps, WarmupCosine
from tests.trainers import quiet_trainer

NAMES = ("mel", "nv", "bcc")


def batches(n: int = 4, size: int = 6):
    generator = torch.Generator().manual_seed(0)
    for i in range(n):
        label = torch.randint(0, 3, (size,), generator=generator)
        image = torch.randn(size, 3, 2, 2, generator=generator) + label.view(-1, 1, 1, 1)
        yield {"image": image, "label": label, "index": torch.arange(i * size, (i + 1) * size)}


def classifier(**options):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return Classifier(network, nn.CrossEntropyLoss(), optimizer, class_names=NAMES, **options)


def loader(n=4):
    return DataLoader(list(batches(n)), batch_size=None)


def test_it_learns_and_reports_by_name():
    module, run = classifier(), quiet_trainer(max_epochs=20)
    run.fit(module, loader(), loader())
    reported = run.callback_metrics
    assert reported["val/balanced_accuracy"] > 0.6
    assert {"train/loss", "val/loss", "val/accuracy", "val/macro_f1", "val/macro_auroc"} <= set(
        reported
    )
    assert {f"val/recall_{name}" for name in NAMES} <= set(reported)
    assert {"val/ece", "val/precision_mel", "val/f1_nv", "val/support_bcc"} <= set(reported)


def test_each_evaluation_starts_afresh():
    module, run = classifier(), quiet_trainer()
    for _ in range(2):
        run.validate(module, loader(), verbose=False)
        assert (
            run.callback_metrics["val/support_mel"]
            + run.callback_metrics["val/support_nv"]
            + run.callback_metrics["val/support_bcc"]
            == 24
        )


def test_validation_loss_is_plain_cross_entropy_over_all_images():
    module, run = classifier(), quiet_trainer()
    uneven = [*batches(2), *batches(1, size=1)]
    run.validate(module, DataLoader(uneven, batch_size=None), verbose=False)
    logits = module(torch.cat([b["image"] for b in uneven]))
    labels = torch.cat([b["label"] for b in uneven])
    expected = nn.functional.cross_entropy(logits, labels)
    assert run.callback_metrics["val/loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_predictions_are_probabilities():
    batch = next(batches())
    probability = classifier().predict_step(batch, 0)
    assert probability.shape == (6, 3)
    assert torch.allclose(probability.sum(1), torch.ones(6))


class Double(nn.Module):
    def forward(self, batch):
        return batch | {"image": 2 * batch["image"]}


def test_mix_is_for_training_only():
    torch.manual_seed(0)
    module, batch = classifier(mix=Double()), next(batches())
    quiet_trainer(fast_dev_run=True).validate(module, loader(), verbose=False)
    module.log = lambda *_: None
    mixed = nn.functional.cross_entropy(module(2 * batch["image"]), batch["label"])
    assert torch.equal(module.training_step(batch, 0), mixed)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3}, 12),
        ({"max_epochs": 3, "accumulate_grad_batches": 3}, 6),
        ({"max_steps": 7}, 7),
        ({"max_epochs": 1, "max_steps": 7}, 4),
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
    ],
)
def test_schedule_spans_the_training(options, steps):
    module = classifier(lr_scheduler=partial(WarmupCosine, warmup=0.0), batches_per_epoch=4)
    run = quiet_trainer(**options)
    run.fit(module, loader(), loader())
    assert module.steps == run.global_step == steps
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_warmup_then_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmupCosine(optimizer, total_steps=20, warmup=0.2)
    rates = []
    for _ in range(20):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 16)) for i in range(16)])


def test_frozen_parameters_do_not_reach_the_optimizer():
    module = classifier()
    module.network[1].bias.requires_grad_(False)
    run = quiet_trainer(max_steps=1)
    run.fit(module, loader(), loader())
    assert [p.shape for p in run.optimizers[0].param_groups[0]["params"]] == [(3, 12)]


def test_a_longer_training_follows_the_longer_curve():
    def schedule(total_steps):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        return WarmupCosine(optimizer, total_steps, warmup=0.0)

    short, long = schedule(10), schedule(20)
    for _ in range(10):
        short.optimizer.step()
        short.step()
    assert short.get_last_lr()[0] == pytest.approx(0)
    long.load_state_dict(short.state_dict())
    long.optimizer.step()
    long.step()
    assert long.get_last_lr()[0] == pytest.approx(0.5 * (1 + math.cos(math.pi * 11 / 20)))


def test_steps_fall_at_their_milestones():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Steps(optimizer, total_steps=8)
    rates = []
    for _ in range(8):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_learning_rates_have_factors_by_submodule():
    module = classifier(lr_factors={"network": 0.1, "network.1": 10.0})
    module.head = nn.Linear(2, 2)
    groups = module.configure_optimizers().param_groups
    assert [(group["lr"], len(group["params"])) for group in groups] == [(1.0, 2), (0.1, 2)]


def test_factor_of_no_submodule_is_named():
    with pytest.raises(ModelError, match="network.7"):
        classifier(lr_factors={"network.7": 10.0}).configure_optimizers()


@pytest.mark.parametrize("kind", [BBN, BCL, CARE, Compression, PaCo, ResLT, SupCon])
def test_a_mix_that_would_not_be_used_is_refused(kind):
    options = {option.name for option in get_parameters(kind)}
    assert "optimizer" in options
    assert "mix" not in options
