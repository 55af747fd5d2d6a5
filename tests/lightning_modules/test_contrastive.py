import copy

import pytest
import torch
from contrastive_methods import (
    COUNTS,
    METHODS,
    QUEUE,
    Encoder,
    Step,
    batch,
    in_float64,
    make,
    one_of_two,
    paco,
    train,
)
from torch.utils.data import DataLoader

from lightning_modules import ModelError, PaCo, ProCo
from lightning_modules.losses import SupConLoss
from lightning_modules.networks.momentum_queue import MomentumPrototypes, MomentumQueue, follow
from tests.processes import in_two
from tests.trainers import quiet_trainer


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_queue_is_first_in_first_out():
    queue, size = MomentumQueue(10, 2), 4
    for step in range(7):
        label = torch.arange(step * size, (step + 1) * size)
        queue.enqueue(label[:, None].expand(-1, 2).float(), label)
        done = (step + 1) * size
        assert queue.pointer == done % 10
        last = set(range(max(0, done - 10), done))
        assert set(queue.label.tolist()) - {-1} == last
        filled = queue.label >= 0
        assert torch.equal(queue.embedding[filled, 0], queue.label[filled].float())


def test_queue_keeps_the_last_of_more_keys_than_it_holds():
    queue, label = MomentumQueue(3, 1), torch.arange(8)
    queue.enqueue(label[:, None].float(), label)
    assert sorted(queue.label.tolist()) == [5, 6, 7]
    queue.enqueue(torch.zeros(1, 1), torch.tensor([9]))
    assert sorted(queue.label.tolist()) == [6, 7, 9]
    none = MomentumQueue(0, 1)
    none.enqueue(label[:, None].float(), label)
    assert none.label.tolist() == []


def test_prototypes_move_on_the_sphere_where_their_class_occurs():
    prototypes = MomentumPrototypes(3, 2, momentum=0.5)
    x, y = torch.eye(2)
    prototypes.update(torch.stack([x, x, y]), torch.tensor([0, 0, 2]))
    assert prototypes.label.tolist() == [0, -1, 2]
    assert torch.equal(prototypes.embedding[[0, 2]], torch.stack([x, y]))
    prototypes.update(torch.stack([y, x]), torch.tensor([0, 1]))
    half = torch.tensor([0.5**0.5, 0.5**0.5])
    assert torch.allclose(prototypes.embedding, torch.stack([half, x, y]))
    assert prototypes.label.tolist() == [0, 1, 2]


def test_follower_is_an_exponential_moving_average_of_parameters_alone():
    network = Encoder(batch_norm=True)
    follower, before = copy.deepcopy(network), copy.deepcopy(network).state_dict()
    for value in network.state_dict().values():
        value.add_(1)
    follow(follower, network, 0.9)
    parameters = dict(follower.named_parameters())
    for name, value in follower.state_dict().items():
        moved = 0.1 if name in parameters else 0
        assert torch.allclose(value.double(), before[name].double() + moved, atol=1e-6), name


@pytest.mark.parametrize("momentum", [0.9, None])
def test_anchors_and_keys(momentum, monkeypatch):
    """Anchors are first views with a key network, else all views; keys are all and the queue."""
    module = paco(Encoder(batch_norm=False), momentum)
    module.log = lambda *_: None
    seen = []
    monkeypatch.setattr(PaCo, "objective", lambda _, c: seen.append(c) or c.logits.sum())
    data = batch("paco")
    module.training_step(data, 0)
    module.training_step(data, 1)
    contrast, label = seen[1], data["label"]
    assert torch.equal(contrast.label, label[:8] if momentum else label)
    assert torch.equal(contrast.key_label[:16], label)
    assert contrast.key_label[16:].tolist() == label[8:].tolist() + [-1] * (QUEUE - 8)
    assert torch.equal(contrast.keys[contrast.own], contrast.anchors)
    assert torch.equal(contrast.keys[16:24], seen[0].keys[8:16])
    weight = module.network.projector[0].weight
    of_second = torch.autograd.grad(contrast.keys[8:16, 0].sum(), weight, retain_graph=True)[0]
    assert of_second.any() == (momentum is None)
    assert torch.autograd.grad(contrast.keys[:8, 0].sum(), weight)[0].any()


def test_key_network_is_no_part_of_the_training():
    module = make("paco")
    data = batch("paco")
    module.training_step(data, 0).backward()
    keys = dict(module.key_network.named_parameters())
    assert keys.keys() == dict(module.network.named_parameters()).keys()
    assert all(not p.requires_grad and p.grad is None for p in keys.values())
    trained = {id(p) for group in module.parameter_groups().values() for p in group}
    assert trained == {id(p) for p in module.network.parameters()}


def test_key_network_starts_from_the_weights_that_the_network_was_given():
    module = make("paco")
    for parameter in module.network.parameters():
        parameter.data.add_(1)
    module.setup("fit")
    assert equal(module.key_network.state_dict(), module.network.state_dict())


def test_key_network_in_half_precision_is_refused():
    make("paco").on_train_start()
    make("gpaco").bfloat16().on_train_start()
    with pytest.raises(ModelError, match="bf16-mixed"):
        make("paco").bfloat16().on_train_start()


@pytest.mark.parametrize("method", METHODS)
def test_every_trained_parameter_gets_a_gradient(method):
    """Data-parallel training would wait forever for a missing gradient."""
    module = make(method)
    module.training_step(batch(method), 0).backward()
    lacking = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []


@pytest.mark.parametrize("method", METHODS)
def test_one_image_is_a_batch(method):
    module = make(method, batch_norm=False)
    module.training_step(batch(method, size=1), 0).backward()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def test_separate_stages_leave_the_encoder_to_the_contrast():
    module, data = make("supcon"), batch("supcon")
    module.joint = False
    module.weight = 0.0
    module.training_step(data, 0).backward()
    assert not any(p.grad.any() for p in module.network.encoder.parameters())
    assert module.network.classifier.weight.grad.any()


@pytest.mark.parametrize("method", ["paco", "bcl"])
def test_a_batch_without_views_is_refused(method):
    data = batch(method) | {"index": torch.arange(len(batch(method)["label"]))}
    with pytest.raises(ModelError, match="datamodules.views.Views"):
        make(method).training_step(data, 0)


def test_two_losses_are_added():
    module, data = make("supcon"), batch("supcon")
    module.eval()
    contrast, _ = module.compare(*({k: v.chunk(2)[i] for k, v in data.items()} for i in (0, 1)))
    expected = 0.3 * SupConLoss()(contrast)
    expected += torch.nn.functional.cross_entropy(contrast.logits, contrast.label)
    module.weight = 0.3
    assert module.training_step(data, 0).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.usefixtures("float64")
def test_bcl_classifies_the_first_view_and_compares_the_others_and_the_prototypes():
    """Compare with eq. 8 of the paper, in naive loops over anchors and classes."""
    module, data = make("bcl").double(), in_float64(batch("bcl"))
    module.eval()
    first, *others = data["image"].chunk(3)
    label, network = data["label"][:8], module.network
    prior = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    logits = network.classify(network.encode(first)) + prior.log()
    classification = -logits.log_softmax(1)[torch.arange(8), label].mean()
    embedding = network.project(network.encode(torch.cat(others)))
    keys, of = torch.cat([embedding, network.prototypes()]), [*label.tolist() * 2, *range(7)]
    losses = []
    for i, anchor in enumerate(embedding):
        terms = {j: (anchor @ key / 0.07).exp() for j, key in enumerate(keys) if j != i}
        below = sum(
            sum(members := [terms[j] for j in terms if of[j] == c]) / len(members) for c in range(7)
        )
        positives = [(terms[j] / below).log() for j in terms if of[j] == of[i]]
        losses.append(-sum(positives) / len(positives))
    expected = classification + 0.35 * sum(losses) / len(losses)
    assert module.training_step(data, 0).item() == pytest.approx(expected.item(), rel=1e-9)


def test_proco_meets_prototypes_and_moves_them_after_the_loss(monkeypatch):
    module, data = make("proco"), batch("proco")
    seen = []
    monkeypatch.setattr(ProCo, "objective", lambda _, c: seen.append(c) or c.logits.sum())
    for step in range(2):
        module.training_step(data, step)
    first, second = (contrast.key_label[-7:].tolist() for contrast in seen)
    present = sorted(set(data["label"].tolist()))
    assert first == [-1] * 7
    assert second == [c if c in present else -1 for c in range(7)]
    keys, label = seen[0].keys[8:16], data["label"][:8]  # those of the key network
    for c in present:
        mean = keys[label == c].mean(0)
        assert torch.allclose(seen[1].keys[c - 7], mean / mean.norm(), atol=1e-6)


def trained(module: PaCo, folder, epochs: int, checkpoint=None, accumulated: int = 1) -> PaCo:
    trainer = quiet_trainer(max_epochs=epochs, accumulate_grad_batches=accumulated)
    batches = DataLoader([batch("paco", seed) for seed in range(4)], batch_size=None)
    trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return module


def lightning(momentum: float = 0.9) -> PaCo:
    torch.manual_seed(0)
    return paco(Encoder(batch_norm=True), momentum)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize("method", ["paco", "predicting"])
def test_resumed_equals_never_stopped(method, tmp_path):
    whole = trained(make(method), tmp_path, epochs=2)
    trained(make(method), tmp_path, epochs=1)
    torch.manual_seed(1)
    resumed = trained(make(method), tmp_path, epochs=2, checkpoint=tmp_path / "1.ckpt")
    assert equal(resumed.state_dict(), whole.state_dict())
    assert whole.queue.pointer == 2 * 4 * 8 % QUEUE
    assert not equal(whole.key_network.state_dict(), whole.network.state_dict())


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_key_network_follows_once_an_optimizer_step(tmp_path):
    """Momentum 0 copies the network, which shows the time of the update: after an accumulation."""
    copied = trained(lightning(momentum=0.0), tmp_path, epochs=1, accumulated=2)
    assert equal(*(dict(n.named_parameters()) for n in (copied.key_network, copied.network)))
    calls = []
    module = lightning()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_modules.contrastive.follow", lambda *_: calls.append(1))
        trained(module, tmp_path, epochs=1, accumulated=2)
    assert len(calls) == 2  # of four batches


def test_key_network_stays_where_a_gradient_scaler_skips_a_step():
    module = make("paco")
    optimizer, scaler = module.configure_optimizers(), torch.amp.GradScaler("cpu")
    for overflow, moved in ((float("inf"), False), (1.0, True)):
        before = copy.deepcopy(module.key_network.state_dict())
        optimizer.zero_grad()
        loss = module.training_step(batch("paco"), 0)
        scaler.scale(loss * overflow).backward()
        scaler.step(optimizer)
        scaler.update()
        for name, value in module.key_network.named_parameters():
            assert torch.equal(value, before[name]) is not moved, name


@pytest.mark.usefixtures("float64")
def test_logits_of_bcl_are_cosines_times_thirty():
    network = make("bcl").network.double()
    vectors = torch.cat([network.classifier.weight * 7, -network.classifier.weight])
    logits = network.classify(vectors)
    thirty = torch.full((7,), 30, dtype=torch.float64)
    torch.testing.assert_close(logits[:7].diagonal(), thirty)
    torch.testing.assert_close(logits[7:].diagonal(), -thirty)
    torch.testing.assert_close(logits[:7], -logits[7:])


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_200_steps_in_half_precision(method, half):
    module = make(method)
    batches = [batch(method, seed % 5, size=4) for seed in range(200)]
    losses = train(module, Step(module), batches, half)
    assert torch.tensor(losses).isfinite().all()
    state = module.state_dict()
    assert all(value.isfinite().all() for value in state.values())
    assert all(v.dtype == torch.float32 for v in state.values() if v.is_floating_point())
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


@pytest.mark.usefixtures("float64")
def test_two_processes_train_as_one():
    first, second = in_two(one_of_two)
    for method in METHODS:
        assert equal(first[method]["state"], second[method]["state"]), method
        module = make(method, batch_norm=False).double()
        batches = [in_float64(batch(method, seed)) for seed in range(4)]
        losses = train(module, Step(module), batches)
        of_both = zip(first[method]["losses"], second[method]["losses"], strict=True)
        assert [sum(pair) / 2 for pair in of_both] == pytest.approx(losses, rel=1e-9), method
        for name, value in module.state_dict().items():
            found = first[method]["state"][name]
            torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-9)
