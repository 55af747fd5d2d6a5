"""Sharpness-aware steps against the papers' formulas in a loop, and what they must not touch."""

import copy
from functools import partial

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader

from callbacks.errors import RunError
from callbacks.recording.metrics_file import read_history
from callbacks.safety.finite_loss import FiniteLoss
from callbacks.stages.sharpness import SAM, ImbSAM
from lightning_modules import Classifier
from lightning_modules.losses import CrossEntropyLoss, InverseFrequency
from lightning_modules.mixes import Mixup
from tests.callbacks.test_stages import classifier
from tests.test_command_line import RUN
from tests.test_command_line import fit as train
from tests.trainers import quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
COUNTS = [110, 85, 5]
LR, RHO, STEPS = 0.1, 0.3, 3


def batches(steps=STEPS, images=9):
    random = torch.Generator().manual_seed(0)
    label = torch.arange(images) % 3
    return [
        {
            "image": torch.randn(images, 3, 2, 2, generator=random) + 1,
            "label": label[torch.randperm(images, generator=random)],
            "index": torch.arange(images),
        }
        for _ in range(steps)
    ]


class Data(LightningDataModule):
    """Batches, with the number of training images of each class and their table."""

    class_counts = COUNTS
    table = pd.DataFrame({"image_id": [f"image {i}" for i in range(9)]})

    def __init__(self, data):
        super().__init__()
        self.batches = data

    def train_dataloader(self):
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        shares = [{k: v[rank::processes] for k, v in batch.items()} for batch in self.batches]
        return DataLoader(shares, batch_size=None)


def fit(module, *callbacks, data=None, **options):
    trainer = quiet_trainer(*callbacks, **({"max_epochs": 1} | options))
    trainer.fit(module, datamodule=Data(data or batches()))
    return trainer


def linear(criterion=None, lr=LR):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = partial(torch.optim.SGD, lr=lr, momentum=0.9)
    return Classifier(network, criterion or nn.CrossEntropyLoss(), optimizer, class_names="abc")


class Quadratic(LightningModule):
    """The loss w' A w / 2, whose gradient is A w."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.a = torch.diag(torch.tensor([1.0, 4.0, 0.25]))

    def training_step(self, batch, batch_idx):
        return self.w @ self.a @ self.w / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=LR)


def test_steps_on_a_quadratic_are_those_of_the_formula():
    module = Quadratic()
    w, a = module.w.detach().clone(), module.a
    fit(module, SAM(RHO))
    for _ in range(STEPS):
        g = a @ w
        e = RHO * g / (g @ g).sqrt()
        w = w - LR * (a @ (w + e))
    torch.testing.assert_close(module.w.detach(), w)


def losses(network, batch):
    return F.cross_entropy(network(batch["image"]), batch["label"], reduction="none")


def gradient(network, loss):
    return list(torch.autograd.grad(loss, list(network.parameters())))


def uphill(network, gradients, rho=RHO):
    """A copy of the network at w + rho g / ||g||."""
    norm = sum(float((g**2).sum()) for g in gradients) ** 0.5
    there = copy.deepcopy(network)
    for parameter, g in zip(there.parameters(), gradients, strict=True):
        parameter.data += rho * g / norm if norm else 0
    return there


def stepped(module, replaced, clip=None):
    """The network after a loop over the batches with the gradients of ``replaced``."""
    network = copy.deepcopy(module.network)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9)
    for batch in batches():
        gradients = replaced(network, batch)
        for parameter, g in zip(network.parameters(), gradients, strict=True):
            parameter.grad = g if clip is None else g.clamp(-clip, clip)
        optimizer.step()
    return dict(network.named_parameters())


def sam_gradient(network, batch):
    there = uphill(network, gradient(network, losses(network, batch).mean()))
    return gradient(there, losses(there, batch).mean())


@pytest.mark.parametrize("clip", [None, 0.02])
def test_steps_of_a_network_are_those_of_the_loop(clip):
    module = linear()
    expected = stepped(module, sam_gradient, clip)
    fit(module, SAM(RHO), gradient_clip_val=clip, gradient_clip_algorithm="value")
    torch.testing.assert_close(dict(module.network.named_parameters()), expected)


def imbsam_gradient(network, batch, weight, factors=(1.0, 1.0, 1.0)):
    factor = torch.tensor(factors)[batch["label"]]
    share = factor / factor.sum()
    tail = torch.tensor([COUNTS[c] < 20 for c in batch["label"]])
    head_loss = (share * losses(network, batch))[~tail].sum()
    there = uphill(network, gradient(network, (share * losses(network, batch))[tail].sum()))
    tail_loss = (share * losses(there, batch))[tail].sum()
    pairs = zip(gradient(network, head_loss), gradient(there, tail_loss), strict=True)
    return [head + weight * tail for head, tail in pairs]


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_steps_of_imbsam_are_those_of_the_loop(weight):
    module = linear()
    expected = stepped(module, partial(imbsam_gradient, weight=weight))
    fit(module, ImbSAM(RHO, tail_weight=weight))
    torch.testing.assert_close(dict(module.network.named_parameters()), expected)


def test_imbsam_splits_a_weighted_loss():
    module = linear(CrossEntropyLoss(weights=InverseFrequency(), class_counts=COUNTS))
    factors = [200 / n for n in COUNTS]
    expected = stepped(module, partial(imbsam_gradient, weight=1.0, factors=factors))
    fit(module, ImbSAM(RHO))
    torch.testing.assert_close(dict(module.network.named_parameters()), expected)


def test_without_tail_images_imbsam_is_plain_training():
    data = [batch | {"label": batch["label"] % 2} for batch in batches()]
    plain, module = linear(), linear()
    fit(plain, data=data)
    fit(module, ImbSAM(RHO), data=data)
    torch.testing.assert_close(module.network.state_dict(), plain.network.state_dict())


@pytest.mark.parametrize("make", [SAM, ImbSAM])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_weights_return_to_the_same_bits(make, precision):
    module = linear(lr=0.0)
    before = copy.deepcopy(module.network.state_dict())
    fit(module, make(RHO), precision=precision)
    torch.testing.assert_close(module.network.state_dict(), before, rtol=0, atol=0)


def test_both_passes_drop_the_same_elements_and_only_the_first_moves_statistics():
    module, masks = classifier(), []
    module.network[0][2].register_forward_hook(lambda _, __, out: masks.append(out == 0))
    plain = copy.deepcopy(module)
    statistics = copy.deepcopy(plain.network[0]).train()
    fit(module, SAM(RHO), data=batches(2))
    assert len(masks) == 4
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])
    assert module.network[0][1].num_batches_tracked == 2
    fit(module_of_first := copy.deepcopy(plain), SAM(RHO), data=batches(1))
    statistics(batches(1)[0]["image"])
    found = module_of_first.network[0][1].running_mean
    torch.testing.assert_close(found, statistics[1].running_mean)


def test_the_loss_is_logged_before_the_perturbation():
    module, data = linear(), batches(1)
    expected = losses(module.network, data[0]).mean()
    trainer = fit(module, SAM(RHO), data=data)
    torch.testing.assert_close(trainer.callback_metrics["train/loss"], expected.detach())


def test_an_infinite_loss_at_the_perturbed_weights_stops_the_run(tmp_path):
    class Cliff(Quadratic):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) / (self.w.norm() < 2.4)

    with pytest.raises(RunError, match="loss is inf at step 0"):
        fit(Cliff(), SAM(RHO), FiniteLoss(str(tmp_path)))


def test_two_processes_take_the_steps_of_one():
    data, one, two = batches(images=12), linear(), linear()
    fit(one, SAM(RHO), data=data)
    fit(two, SAM(RHO), data=data, devices=2, strategy="ddp_fork", use_distributed_sampler=False)
    torch.testing.assert_close(two.network.state_dict(), one.network.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SAM", "ImbSAM"])
def test_a_resumed_run_has_the_same_bits(lesions, name):
    step = (
        f"--trainer.callbacks+=callbacks.{name}",
        "--trainer.callbacks+=pytorch_lightning.callbacks.ModelCheckpoint",
        "--trainer.callbacks.filename=step",
        "--trainer.callbacks.every_n_train_steps=7",  # in the middle of the second epoch
        "--trainer.callbacks.enable_version_counter=false",
        "--trainer.callbacks.save_top_k=1",
        "--trainer.max_epochs=2",
    )
    train(lesions, *step)
    whole = torch.load(RUN / "last.ckpt")
    for file in ("last.ckpt", "previous.ckpt", "best.ckpt"):
        (RUN / file).unlink(missing_ok=True)
    train(lesions, *step)
    resumed = torch.load(RUN / "last.ckpt")
    for key in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(resumed[key], whole[key], rtol=0, atol=0)
    assert read_history(RUN / "metrics.jsonl")["attempt"].max() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 2}, "set --trainer.accumulate_grad_batches=1"),
        ({"precision": "bf16-true"}, "set --trainer.precision to one of 32-true"),
    ],
)
def test_what_would_be_wrong_is_refused(options, message):
    with pytest.raises(RunError, match=message):
        fit(linear(), SAM(), **options)


def test_what_imbsam_cannot_split_is_refused():
    with pytest.raises(
        RunError, match=r"set --trainer.callbacks.threshold between 0.0250 and 0.5500"
    ):
        fit(linear(), ImbSAM(threshold=0.01))
    mixed = linear()
    mixed.mix = Mixup(num_classes=3)
    with pytest.raises(RunError, match=r"set --model.mix=null"):
        fit(mixed, ImbSAM())
    twice = linear()
    twice.network = nn.Sequential(nn.Flatten(0, 1), nn.Flatten(), twice.network[0], nn.Linear(4, 3))
    twice.training_step = lambda batch, batch_idx: twice.network(batch["image"]).sum()
    with pytest.raises(RunError, match="classifies each image of a batch once"):
        fit(twice, ImbSAM())
    with pytest.raises(RunError, match="radius of at least 0"):
        SAM(-1.0)
