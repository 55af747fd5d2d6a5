"""Remix, CMO and Balanced-MixUp against loops over their papers' formulas."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datamodules.samplers import Natural, Paired
from lightning_modules import Classifier, ModelError
from lightning_modules.mixes import CMO, BalancedMixup, CutMix, Mixup, Remix, SaliencyMix
from lightning_modules.mixes.mixup import draw_lambda
from tests.lightning_modules.test_mixes import DEVICES, B, H, K, W, a_batch, naive_box

COUNTS = [1000, 300, 100, 40, 39, 10, 9]
CPU = torch.device("cpu")
PAIRS = {
    "CMO": CMO(probability=1.0),
    "CMO, per image": CMO(probability=1.0, per_image=True),
    "Balanced-MixUp": BalancedMixup(1.0),
    "Balanced-MixUp, per image": BalancedMixup(1.0, per_image=True),
}


@pytest.fixture(params=PAIRS.values(), ids=PAIRS.keys())
def pair_mix(request):
    return request.param


def one_hot(label) -> torch.Tensor:
    return F.one_hot(torch.as_tensor(label), K).float()


def remix_lambda(n_i: int, n_j: int, lam: float, kappa: float, tau: float) -> float:
    """The paper's three cases."""
    if n_i / n_j >= kappa and lam < tau:
        return 0.0
    if n_i / n_j <= 1 / kappa and 1 - lam < tau:
        return 1.0
    return lam


@pytest.mark.parametrize(("kappa", "tau"), [(3.0, 0.5), (3.0, 0.8), (20.0, 0.5), (1.0, 0.4)])
@pytest.mark.parametrize("per_image", [False, True])
def test_remix_in_a_loop(kappa, tau, per_image):
    cases = set()
    for seed in range(8):
        batch, draws = a_batch(seed), B if per_image else 1
        torch.manual_seed(seed)
        mixed = Remix(COUNTS, 1.0, kappa, tau, per_image)(batch)
        torch.manual_seed(seed)  # and the same draws again
        partner, lam = torch.randperm(B).tolist(), draw_lambda(1.0, draws, CPU).expand(B)
        for i, j in enumerate(partner):
            y_i, y_j = batch["label"][i], batch["label"][j]
            own = remix_lambda(COUNTS[y_i], COUNTS[y_j], lam[i].item(), kappa, tau)
            cases.add(own if own in (0, 1) else "mixup")
            expected = own * one_hot(y_i) + (1 - own) * one_hot(y_j)
            torch.testing.assert_close(mixed["label"][i], expected)
            image = lam[i] * batch["image"][i] + (1 - lam[i]) * batch["image"][j]
            torch.testing.assert_close(mixed["image"][i], image)
    assert cases == {0.0, 1.0, "mixup"}


@pytest.mark.parametrize(
    ("counts", "options"),
    [(COUNTS, {"kappa": torch.inf}), (COUNTS, {"tau": 0.0}), ([5] * K, {"tau": 1.0})],
    ids=["infinite kappa", "tau of 0", "classes of one size"],
)
def test_remix_that_is_mixup(counts, options):
    batch = a_batch()
    results = []
    for mix in (Remix(counts, **options), Mixup(1.0)):
        torch.manual_seed(0)
        results.append(mix(batch))
    assert all(torch.equal(results[0][k], results[1][k]) for k in results[1])


def test_remix_with_a_tau_of_1_always_has_the_rarer_label():
    label, partner = torch.tensor([0, 5, 0, 3]), torch.tensor([5, 0, 0, 4])
    mix = Remix(COUNTS, tau=1.0)
    lam = mix.label_lambda(torch.tensor([0.9]), label, partner)
    torch.testing.assert_close(lam, torch.tensor([0.0, 1.0, 0.9, 0.9]))


def test_remix_counts_a_class_without_images_as_the_rarest():
    mix = Remix([100, 0, 5, 5, 5, 5, 5])
    lam = mix.label_lambda(torch.tensor([0.3]), torch.tensor([0, 1]), torch.tensor([1, 0]))
    torch.testing.assert_close(lam, torch.tensor([0.0, 0.3]))


def test_remix_after_another_mix_goes_by_the_mean_class_size():
    soft = torch.stack([0.5 * one_hot(0) + 0.5 * one_hot(2), one_hot(1)])  # of 550 and 300 images
    for kappa, expected in ((1.8, 0.0), (1.9, 0.3)):
        lam = Remix(COUNTS, kappa=kappa).label_lambda(torch.tensor([0.3]), soft, soft.flip(0))
        assert lam[0].item() == pytest.approx(expected)
    torch.manual_seed(0)
    label = nn.Sequential(Mixup(1.0), Remix(COUNTS))(a_batch())["label"]
    assert torch.allclose(label.sum(1), torch.ones(B))


@pytest.mark.parametrize("options", [{"kappa": 0.5}, {"tau": -0.1}, {"tau": 1.5}])
def test_remix_refuses_what_the_paper_does_not_define(options):
    with pytest.raises(ModelError, match=f"{next(iter(options))}=.*is out of range: set"):
        Remix(COUNTS, **options)


def test_the_class_sizes_of_remix_are_not_saved():
    assert not Remix(COUNTS).state_dict()


@pytest.mark.parametrize("per_image", [False, True])
def test_cmo_in_a_loop(per_image):
    batch, n = a_batch(1), B // 2
    draws = n if per_image else 1
    torch.manual_seed(0)
    mixed = CMO(1.0, 1.0, per_image)(batch)
    torch.manual_seed(0)
    lam = draw_lambda(1.0, draws, CPU)
    torch.rand(draws)
    y, x = (torch.randint(side, (draws,)).tolist() for side in (H, W))
    for i in range(n):
        background, foreground = 2 * i, 2 * i + 1
        k = i if per_image else 0
        rows, columns = naive_box(y[k], x[k], lam[k].item())
        expected = batch["image"][background].clone()
        expected[:, rows, columns] = batch["image"][foreground][:, rows, columns]
        assert torch.equal(mixed["image"][i], expected)
        share = (rows.stop - rows.start) * (columns.stop - columns.start) / (H * W)
        own, pasted = (one_hot(batch["label"][row]) for row in (background, foreground))
        torch.testing.assert_close(mixed["label"][i], (1 - share) * own + share * pasted)


def test_cmo_mixes_its_share_of_the_batches():
    mix, n = CMO(), 1000
    torch.manual_seed(0)
    batch = a_batch(size=4)
    changed = sum(not torch.equal(mix(batch)["image"], batch["image"][::2]) for _ in range(n))
    # Half of the boxes but those below two pixels of a side, 1 - lambda < (2 / 24)^2.
    assert changed / n == pytest.approx(0.5 * (1 - (2 / H) ** 2), abs=5 * 0.5 / n**0.5)


@pytest.mark.parametrize("per_image", [False, True])
def test_balanced_mixup_in_a_loop(per_image):
    batch, n = a_batch(1), B // 2
    torch.manual_seed(0)
    mixed = BalancedMixup(0.4, per_image)(batch)
    torch.manual_seed(0)
    lam = draw_lambda(0.4, n if per_image else 1, CPU, beta=1.0).expand(n)
    for i in range(n):
        natural, balanced = 2 * i, 2 * i + 1
        for name in ("image", "mask", "saliency"):
            x_i, x_c = batch[name][natural], batch[name][balanced]
            torch.testing.assert_close(mixed[name][i], (1 - lam[i]) * x_i + lam[i] * x_c)
        y_i, y_c = one_hot(batch["label"][natural]), one_hot(batch["label"][balanced])
        torch.testing.assert_close(mixed["label"][i], (1 - lam[i]) * y_i + lam[i] * y_c)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 3.0])
def test_lambda_of_balanced_mixup_has_the_distribution_of_the_paper(alpha):
    """P(lambda <= t) of Beta(alpha, 1) is t^alpha."""
    torch.manual_seed(0)
    lam = draw_lambda(alpha, 100_000, CPU, beta=1.0)
    for t in (0.01, 0.1, 0.5, 0.9):
        assert (lam <= t).float().mean().item() == pytest.approx(t**alpha, abs=0.01)


@pytest.mark.parametrize(("alpha", "row"), [(1e-4, 0), (1e4, 1)])
def test_ends_of_balanced_mixup_are_its_two_ways_of_sampling(alpha, row):
    batch = a_batch()
    torch.manual_seed(0)
    mixed = BalancedMixup(alpha, per_image=True)(batch)
    torch.testing.assert_close(mixed["image"], batch["image"][row::2], rtol=0, atol=2e-3)
    assert torch.equal(mixed["label"].argmax(1), batch["label"][row::2])


def test_pairs_become_one_row_each(pair_mix):
    batch = a_batch()
    before = {name: value.clone() for name, value in batch.items()}
    mixed = pair_mix(batch)
    assert {name: len(value) for name, value in mixed.items()} == dict.fromkeys(batch, B // 2)
    assert torch.equal(mixed["index"], batch["index"][::2])
    assert torch.allclose(mixed["label"].sum(1), torch.ones(B // 2))
    assert all(torch.equal(batch[k], before[k]) for k in batch)


def test_odd_batches_are_refused(pair_mix):
    with pytest.raises(ModelError, match="even batch"):
        pair_mix(a_batch(size=5))


@pytest.mark.parametrize("kind", [CMO, BalancedMixup])
def test_one_lambda_for_a_batch_unless_per_image(kind):
    counted = {}
    for per_image in (False, True):
        torch.manual_seed(1)
        batch = a_batch() | {"label": torch.tensor([0, 1] * (B // 2))}
        options = {"probability": 1.0} if kind is CMO else {}
        counted[per_image] = kind(per_image=per_image, **options)(batch)["label"][:, 0].unique()
    assert len(counted[False]) == 1 < len(counted[True])


@pytest.mark.parametrize("shape", [(5,), (5, 2, 3)], ids=["vectors", "maps"])
@pytest.mark.parametrize("mix", [Remix(COUNTS), BalancedMixup(1.0)], ids=["remix", "balanced"])
def test_encoded_images_are_blended(mix, shape):
    """The label tells the weights, for two images of classes of one size."""
    vectors, weights = torch.rand(2, *shape), []
    batch = {"image": vectors, "label": torch.tensor([3, 4]), "index": torch.arange(2)}
    for seed in range(10):
        torch.manual_seed(seed)
        mixed = mix(batch)
        weight = mixed["label"][0, 3]
        expected = weight * vectors[0] + (1 - weight) * vectors[1]
        torch.testing.assert_close(mixed["image"][0], expected)
        weights.append(weight.item())
    assert any(0.01 < weight < 0.99 for weight in weights)


@pytest.mark.parametrize("kind", [CMO, CutMix, SaliencyMix])
def test_boxes_of_vectors_are_refused(kind):
    batch = a_batch() | {"image": torch.rand(B, 5)}
    with pytest.raises(ModelError, match=f"{kind.__name__} pastes pixels.*set --data.encoded=fal"):
        kind()(batch)


def module(mix) -> Classifier:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * H * W, K))
    return Classifier(network, nn.CrossEntropyLoss(), torch.optim.SGD, mix=mix)


def test_mixes_of_pairs_ask_for_their_sampler(pair_mix):
    found = module(pair_mix)
    labels = [0, 1, 1]
    for sampler in (Natural(labels), Paired(labels, "natural", "balanced")):
        found._trainer = SimpleNamespace(train_dataloader=SimpleNamespace(sampler=sampler))
        if isinstance(sampler, Natural):
            with pytest.raises(ModelError, match="set data.sampler to datamodules.samplers.Paired"):
                found.on_train_start()
        else:
            found.on_train_start()


def test_mixes_of_any_batch_take_any_sampler():
    found = module(Remix(COUNTS))
    found._trainer = SimpleNamespace(train_dataloader=SimpleNamespace(sampler=Natural([0])))
    found.on_train_start()


@pytest.mark.parametrize(
    "mix", [CMO(probability=0.0), BalancedMixup(1e-4), CutMix(probability=0.0)]
)
def test_mixed_rows_belong_to_the_even_rows(mix):
    batch = a_batch() | {"label": torch.arange(B) % 2}  # anchors of class 0
    torch.manual_seed(0)
    found = module(mix)
    logits, label = found.mixed(batch)
    assert torch.equal(label.argmax(1), torch.zeros(B // 2).long())
    torch.testing.assert_close(logits, found(batch["image"])[::2], rtol=0, atol=2e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mix", [*PAIRS.values(), Remix(COUNTS)], ids=[*PAIRS, "Remix"])
def test_it_stays_on_the_device_and_never_waits_for_it(mix, device):
    batch = a_batch(device=device)
    mix = mix.to(device)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        mixed = mix(batch)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert {value.device.type for value in mixed.values()} == {device}
