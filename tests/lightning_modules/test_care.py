from functools import partial
from unittest import mock

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vgg import VGG
from torch import nn
from torch.utils.data import DataLoader

from datamodules.classes import HAM10000_CLASSES
from lightning_modules.care import CARE, attention_loss, bounding_boxes, grad_cam, normalize
from lightning_modules.losses import CostSensitiveLoss, FocalLoss
from lightning_modules.mixes import Mixup
from lightning_modules.networks import TimmNetwork
from tests.trainers import quiet_trainer

NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
COUNTS = [1113, 6705, 514, 327, 1099, 115, 142]
RARE = (3, 5, 6)
SIZE, GRID = 16, 4


class Network(nn.Module):
    """A convolution, average pooling and a linear layer, or a nonlinear head."""

    def __init__(self, linear: bool = True):
        super().__init__()
        stride = SIZE // GRID
        self.body = nn.Sequential(nn.Conv2d(3, 8, stride, stride), nn.Tanh())
        self.fc = nn.Linear(8, 7)
        self.last = nn.Identity() if linear else nn.Sequential(nn.Conv2d(8, 8, 2), nn.Sigmoid())

    def features(self, images):
        return self.body(images)

    def classify(self, features):
        return self.fc(self.last(features).mean((2, 3)))

    def forward(self, images):
        return self.classify(self.features(images))


def a_batch(seed: int = 0, size: int = 14, dtype: torch.dtype = torch.float32) -> dict:
    """A batch with every class twice; lesions are rectangles without one corner."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(size, 1, SIZE, SIZE)
    for i in range(size):
        y, x, height, width = torch.randint(2, SIZE - 4, (4,), generator=generator).tolist()
        mask[i, 0, y : y + height, x : x + width] = 1
        mask[i, 0, y, x] = 0
    return {
        "image": torch.rand(size, 3, SIZE, SIZE, generator=generator).to(dtype),
        "mask": mask,
        "label": torch.arange(size) % 7,
        "index": torch.arange(size),
    }


def care(**options) -> CARE:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    module = CARE(
        Network(),
        nn.CrossEntropyLoss(),
        optimizer,
        class_names=NAMES,
        shots=HAM10000_CLASSES.shots,
        **options,
    )
    module.log_dict = mock.Mock()
    return module


def attention(module: CARE, batch: dict) -> torch.Tensor:
    features = module.network.features(batch["image"])
    return module.attention(features, module.network.classify(features), batch)


def gradients(module: nn.Module, loss: torch.Tensor) -> dict:
    found = torch.autograd.grad(
        loss, list(module.network.parameters()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(dict(module.network.named_parameters()), found, strict=True))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("side", [4, 7])
def test_grad_cam_of_pooling_and_a_linear_layer_is_the_cam(side):
    features = torch.randn(5, 8, side, side, dtype=torch.float64, requires_grad=True)
    fc, label = nn.Linear(8, 7).double(), torch.arange(5)
    cam = torch.einsum("bk,bkhw->bhw", fc.weight[label], features)
    found = grad_cam(features, fc(features.mean((2, 3))), label)
    torch.testing.assert_close(found, cam)
    torch.testing.assert_close(normalize(found), normalize(cam / side**2))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("linear", [True, False])
def test_grad_cam_by_one_backward_pass_for_each_image(linear):
    network, batch = Network(linear).double(), a_batch(dtype=torch.float64)
    features = network.features(batch["image"])
    found = grad_cam(features, network.classify(features), batch["label"])
    for i, label in enumerate(batch["label"]):
        one = features[i : i + 1].detach().requires_grad_()
        network.classify(one)[0, label].backward()
        weights = one.grad[0].mean((1, 2))
        expected = sum(a * plane for a, plane in zip(weights, one[0], strict=True))
        torch.testing.assert_close(normalize(found[i : i + 1]), normalize(expected[None]))


def test_grad_cam_through_the_head_of_vgg():
    network = VGG([8, "M"], num_classes=7, mlp_ratio=0.01)
    features = network.forward_features(torch.rand(2, 3, 14, 14))
    cam = grad_cam(features, network.forward_head(features), torch.tensor([1, 2]))
    assert cam.shape == (2, 7, 7)
    assert normalize(cam).amax((1, 2)).tolist() == [1, 1]


def test_the_weights_of_grad_cam_are_constants():
    network, batch = Network(), a_batch()
    features = network.features(batch["image"])
    cam = grad_cam(features, network.classify(features), batch["label"])
    assert all(
        g is None
        for g in torch.autograd.grad(cam.sum(), network.fc.parameters(), allow_unused=True)
    )


def test_maps_reach_from_0_to_1():
    heat = normalize(torch.randn(50, 7, 7) * torch.logspace(-20, 20, 50)[:, None, None])
    assert heat.amin((1, 2)).tolist() == [0] * 50
    assert heat.amax((1, 2)).tolist() == [1] * 50


def test_constant_maps_are_0_and_have_no_gradient():
    levels = torch.tensor([0, 1, -3, 1e4, 1e-30])[:, None, None]
    cam = (levels * torch.ones(5, 7, 7)).requires_grad_()
    heat = normalize(cam)
    heat.square().sum().backward()
    assert not heat.any()
    assert not cam.grad.any()
    rounded = levels[1:4] + levels[1:4] * 1e-6 * torch.randn(3, 7, 7)
    assert not normalize(rounded).any()


def a_box() -> torch.Tensor:
    box = torch.zeros(1, 7, 7)
    box[:, 2:5, 1:4] = 1
    return box


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_attention_on_exactly_the_lesion(tau):
    assert attention_loss(a_box(), a_box(), tau, 1.0).item() == -tau
    assert attention_loss(1 - a_box(), a_box(), tau, 2.0).item() == 2


@pytest.mark.parametrize("tau", [0.3, 0.9])
def test_a_lesion_that_fills_the_image_has_no_outside(tau):
    heat = torch.rand(4, 7, 7)
    everywhere = torch.ones(4, 7, 7)
    expected = -heat.mean((1, 2)).clamp(max=tau)
    assert torch.allclose(attention_loss(heat, everywhere, tau, 1.0), expected)
    rounded = everywhere - 1e-7
    assert torch.allclose(attention_loss(heat, rounded, tau, 1.0), expected, atol=0.01)


@pytest.mark.parametrize(("tau", "pulls"), [(0.4, False), (0.6, True)])
def test_enough_attention_pulls_no_more(tau, pulls):
    heat = (0.5 * torch.ones(1, 7, 7)).requires_grad_()
    attention_loss(heat, a_box(), tau, outside_weight=0.0).sum().backward()
    assert heat.grad.any() == pulls


def test_bounding_boxes():
    mask = torch.zeros(4, 1, 6, 8)
    mask[0, 0, 1, 5] = mask[0, 0, 4, 2] = 1
    mask[1, 0, 0, 0] = 0.6
    mask[2] = 1
    mask[3] = 0.4  # no pixel is lesion for the most part
    expected = torch.zeros(4, 1, 6, 8)
    expected[0, 0, 1:5, 2:6] = 1
    expected[1, 0, 0, 0] = 1
    expected[2] = 1
    assert torch.equal(bounding_boxes(mask), expected)


def naive(module: CARE, batch: dict, classes: tuple = RARE) -> list:
    """L_a of the images of ``classes``, one by one in a loop."""
    weight, losses = module.network.fc.weight.detach(), []
    for image, mask, label in zip(batch["image"], batch["mask"][:, 0], batch["label"], strict=True):
        if label not in classes or not mask.any():
            continue
        if module.boxes:
            rows, columns = (mask.any(d).nonzero() for d in (1, 0))
            mask = torch.zeros_like(mask)
            mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
        cam = sum(w * a for w, a in zip(weight[label], module.network.features(image), strict=True))
        heat = (cam - cam.min()) / (cam.max() - cam.min())
        stride = SIZE // GRID
        heat = heat.repeat_interleave(stride, 0).repeat_interleave(stride, 1)  # as the image
        inside = (mask * heat).sum() / mask.sum()
        outside = ((1 - mask) * heat).sum() / (1 - mask).sum() if (mask < 1).any() else 0.0
        losses.append(-min(inside, module.tau) + module.outside_weight * outside)
    return losses


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("reduction", ["batch", "sum", "mean"])
@pytest.mark.parametrize("seed", range(3))
def test_naive_loop(boxes, reduction, seed):
    module = care(boxes=boxes, reduction=reduction, outside_weight=0.7).double()
    batch = a_batch(seed, dtype=torch.float64)
    batch["mask"][3], batch["mask"][5] = 1, 0  # fills the image; is not there
    losses = naive(module, batch)
    assert len(losses) == 5
    expected = sum(losses) * {"batch": 96 / 14, "sum": 1, "mean": 1 / 5}[reduction]
    found = attention(module, batch)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(module, found), gradients(module, expected))


@pytest.mark.usefixtures("float64")
def test_strength_is_the_published_one_in_every_batch():
    """Batches of any size add up, on average, to the loss of the published batch of 96 images."""
    module, whole = care().double(), a_batch(size=96, dtype=torch.float64)
    published = sum(naive(module, whole))
    assert attention(module, whole).item() == pytest.approx(published.item(), rel=1e-9)
    for size in (8, 32):
        parts = [{k: v[i : i + size] for k, v in whole.items()} for i in range(0, 96, size)]
        mean = sum(attention(module, part).item() for part in parts) / len(parts)
        assert mean == pytest.approx(published.item(), rel=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("criterion", [CostSensitiveLoss(class_counts=COUNTS), FocalLoss()])
def test_other_criteria(criterion):
    module, batch = care(alpha=0.3).double(), a_batch(dtype=torch.float64)
    module.criterion = criterion
    expected = 0.7 * criterion(module(batch["image"]), batch["label"])
    expected = expected + 0.3 * 96 / 14 * sum(naive(module, batch))
    torch.testing.assert_close(module.training_step(batch, 0), expected)


@pytest.mark.usefixtures("float64")
def test_classes():
    batch = a_batch(dtype=torch.float64)
    all_of_them = care(classes="all", reduction="mean").double()
    none = care(classes=[]).double()
    expected = sum(naive(all_of_them, batch, classes=range(7))) / 14
    torch.testing.assert_close(attention(all_of_them, batch), expected)
    assert attention(none, batch).item() == 0
    assert care(classes=["df"]).attended.tolist() == [name == "df" for name in NAMES]


def test_batches_without_anything_to_attend_to_have_no_gradient():
    batch = a_batch()
    for without in (
        batch | {"mask": torch.zeros_like(batch["mask"])},
        batch | {"image": torch.full_like(batch["image"], 0.5)},
    ):
        for reduction in ("batch", "sum", "mean"):
            module = care(reduction=reduction)
            loss = attention(module, without)
            assert loss.item() == 0
            assert not any(g.any() for g in gradients(module, loss).values())


@pytest.mark.usefixtures("float64")
def test_the_gradient_is_that_of_the_formula():
    """Without the gradient through the true-class logits, which the published code adds."""
    module, batch = care(alpha=0.3).double(), a_batch(dtype=torch.float64)
    found = gradients(module, module.training_step(batch, 0))
    logits = module(batch["image"])
    classification = F.cross_entropy(logits, batch["label"])
    published = 96 / 14 * sum(naive(module, batch))
    formula = gradients(module, 0.7 * classification + 0.3 * published)
    torch.testing.assert_close(found, formula)
    # The attention reaches the encoder, and leaves the head to the classification.
    plain = gradients(module, 0.7 * F.cross_entropy(module(batch["image"]), batch["label"]))
    for name in found:
        assert torch.allclose(found[name], plain[name], atol=1e-7) == name.startswith("fc")
    assert all(p.grad is None for p in module.parameters())


def test_alpha_0_is_plain_training():
    module, batch = care(alpha=0.0), a_batch()
    plain = F.cross_entropy(module(batch["image"]), batch["label"])
    found, expected = (gradients(module, x) for x in (module.training_step(batch, 0), plain))
    assert all(torch.equal(found[k], expected[k]) for k in found)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("reduction", ["batch", "sum", "mean"])
def test_two_processes_are_one(reduction, monkeypatch):
    """The mean of the processes' gradients is the gradient of the whole batch."""
    module, batch = care(reduction=reduction).double(), a_batch(size=21, dtype=torch.float64)
    sums = []
    monkeypatch.setattr("lightning_modules.care.global_sum", lambda x: sums.append(x) or x)
    whole = attention(module, batch)
    expected = gradients(module, whole)
    monkeypatch.setattr(
        "lightning_modules.care.global_sum", lambda x: sums[0].detach() + 2 * (x - x.detach())
    )
    each = []
    for part in (slice(8), slice(8, 21)):
        loss = attention(module, {k: v[part] for k, v in batch.items()})
        torch.testing.assert_close(loss, whole)
        each.append(gradients(module, loss))
    for name in expected:
        torch.testing.assert_close((each[0][name] + each[1][name]) / 2, expected[name])


def test_half_precision_is_for_the_network_only():
    module, batch = care(classes="all", reduction="mean"), a_batch()
    exact = attention(module, batch)
    features = module.network.features(batch["image"])
    logits = module.network.classify(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module.attention(features, logits, batch), exact)
        half = attention(module, batch)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), abs=0.02)


def test_what_care_cannot_do_it_says():
    with pytest.raises(TypeError, match="mix"):
        care(mix=Mixup())
    with pytest.raises(ValueError, match=r"names \['scar'\]"):
        care(classes=["df", "scar"])
    batch = a_batch()
    del batch["mask"]
    with pytest.raises(ValueError, match="set --data.mask=true"):
        care().training_step(batch, 0)
    with pytest.raises(ValueError, match="set model.network to a CNN"):
        care().attention(torch.rand(14, 5, 8), torch.rand(14, 7), a_batch())


def test_the_checkpoint_is_that_of_a_classifier():
    assert all(key.startswith("network.") for key in care().state_dict())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_mambaout"])
def test_timm_networks_are_their_head_after_their_features(name):
    network = TimmNetwork(name, pretrained=False).eval()
    size = timm.get_pretrained_cfg(name).input_size[-1]
    images = torch.rand(1, 3, size, size)
    expected = network.model((images - network.mean) / network.std)
    assert torch.equal(network.classify(network.features(images)), expected)


def test_it_learns_where_to_look():
    module, batch = care(alpha=0.9, classes="all", reduction="mean"), a_batch()
    batch["image"][:, :1] = 0.2 * batch["image"][:, :1] + 0.8 * batch["mask"]
    before = attention(module, batch).item()
    del module.log_dict
    quiet_trainer(max_epochs=1).fit(
        module, *(DataLoader(n * [batch], batch_size=None) for n in (60, 1))
    )
    assert attention(module, batch) < before - 0.2
