import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_modules.mixes import CutMix, Mixup, MixupOrCutMix, SaliencyMix
from lightning_modules.mixes.cutmix import paste, spanned
from lightning_modules.mixes.mixup import blend, draw_lambda, shuffled

K, B, H, W = 7, 12, 24, 30
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
MIXES = {
    "mixup": Mixup(1.0),
    "mixup, per image": Mixup(1.0, per_image=True),
    "CutMix": CutMix(),
    "CutMix, per image": CutMix(per_image=True),
    "mixup or CutMix": MixupOrCutMix(),
    "SaliencyMix": SaliencyMix(probability=1.0),
    "SaliencyMix, per image": SaliencyMix(probability=1.0, per_image=True),
}
BOXES = {name: mix for name, mix in MIXES.items() if isinstance(mix, CutMix)}


def a_batch(seed: int = 0, size: int = B, device: str = "cpu") -> dict:
    generator = torch.Generator().manual_seed(seed)
    batch = {
        "image": torch.rand(size, 3, H, W, generator=generator),
        "mask": torch.rand(size, 1, H, W, generator=generator).round(),
        "saliency": torch.rand(size, 1, H, W, generator=generator),
        "label": torch.randint(0, K, (size,), generator=generator),
        "index": torch.arange(size),
    }
    return {name: value.to(device) for name, value in batch.items()}


def an_indexed_batch(seed: int = 0, size: int = B) -> dict:
    """A batch in which every pixel holds the number of its image, and every label is unique."""
    number = torch.arange(size)
    image = number.float().view(-1, 1, 1, 1).expand(size, 3, H, W)
    return a_batch(seed, size) | {"image": image, "label": F.one_hot(number, size).float()}


@pytest.fixture(params=MIXES.values(), ids=MIXES.keys())
def mix(request):
    return request.param


@pytest.fixture(params=BOXES.values(), ids=BOXES.keys())
def box_mix(request):
    return request.param


@pytest.mark.parametrize("ways", [1, B])
def test_lambda_one_is_the_identity_bit_for_bit(ways):
    batch = a_batch()
    partners = shuffled(batch)
    one, nothing = torch.ones(ways), torch.zeros(ways, 1, H, W, dtype=torch.bool)
    for mixed in (blend(batch, partners, one, K), paste(batch, partners, nothing, K)):
        assert all(torch.equal(mixed[k], batch[k]) for k in ("image", "mask", "saliency", "index"))
        assert torch.equal(mixed["label"], F.one_hot(batch["label"], K).float())


@pytest.mark.parametrize("kind", [CutMix, SaliencyMix])
def test_probability_zero_is_the_identity(kind):
    batch = a_batch()
    mixed = kind(probability=0.0)(batch)
    assert torch.equal(mixed["image"], batch["image"])
    assert torch.equal(mixed["label"].argmax(1), batch["label"])


def test_lambda_one_is_plain_cross_entropy():
    batch, logits = a_batch(), torch.randn(B, K)
    label = blend(batch, shuffled(batch), torch.ones(1), K)["label"]
    assert torch.allclose(F.cross_entropy(logits, label), F.cross_entropy(logits, batch["label"]))


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 1.0])
def test_soft_labels_are_the_two_term_form(lam):
    batch, logits = a_batch(), torch.randn(B, K)
    partners = shuffled(batch)
    label = blend(batch, partners, torch.tensor([lam]), K)["label"]
    own, other = (F.cross_entropy(logits, y) for y in (batch["label"], partners["label"]))
    assert torch.allclose(F.cross_entropy(logits, label), lam * own + (1 - lam) * other)


def test_labels_are_distributions(mix):
    for seed in range(5):
        label = mix(a_batch(seed))["label"]
        assert label.shape == (B, K)
        assert label.dtype == torch.float32
        assert label.min() >= 0
        assert torch.allclose(label.sum(1), torch.ones(B))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_lambda_has_the_moments_of_the_beta_distribution(alpha):
    torch.manual_seed(0)
    lam = draw_lambda(alpha, 100_000, torch.device("cpu"))
    assert lam.mean().item() == pytest.approx(0.5, abs=0.01)
    assert lam.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)


def partners(mixed: dict) -> torch.Tensor:
    """Partner of each image in a mixed indexed batch; the image itself if none is visible."""
    other = mixed["label"] - mixed["label"].diagonal().diag()
    return other.argmax(1).where(other.sum(1) > 0, torch.arange(len(other)))


def lambdas(mixed: dict) -> torch.Tensor:
    """The mixing ratios of the images of a mixed indexed batch that have a partner."""
    return mixed["label"].diagonal()[partners(mixed) != torch.arange(B)]


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_one_lambda_for_a_batch_unless_per_image(kind):
    torch.manual_seed(3)
    assert lambdas(kind(alpha=1.0)(an_indexed_batch())).unique().numel() == 1
    each = kind(alpha=1.0, per_image=True)
    assert lambdas(each(an_indexed_batch())).unique().numel() > B // 2


def test_partners_are_a_permutation(mix):
    """No image is the partner of two others."""
    for seed in range(5):
        torch.manual_seed(seed)
        drawn = partners(mix(an_indexed_batch()))
        shown = drawn[drawn != torch.arange(B)]
        assert shown.numel() == shown.unique().numel() > 0


def test_partners_are_drawn_anew(mix):
    torch.manual_seed(0)
    batch = an_indexed_batch()
    draws = {tuple(partners(mix(batch)).tolist()) for _ in range(10)}
    assert len(draws) > 5


def test_images_are_mixed_as_their_labels(mix):
    """The share of each source in the pixels equals its share in the label."""
    for seed in range(5):
        torch.manual_seed(seed)
        batch = an_indexed_batch(seed)
        mixed = mix(batch)
        expected = mixed["label"] @ torch.arange(B).float()
        assert torch.allclose(mixed["image"].mean((1, 2, 3)), expected, atol=1e-3)


def test_lambda_counts_the_pixels_that_are_left_exactly(box_mix):
    for seed in range(10):
        torch.manual_seed(seed)
        mixed = box_mix(an_indexed_batch())
        pasted = (mixed["image"][:, 0] != torch.arange(B).view(-1, 1, 1)).sum((1, 2))
        lam = mixed["label"].diagonal()
        assert torch.equal(lam, 1 - pasted / (H * W))
        assert torch.equal(((1 - lam) * H * W).round().long(), pasted)


def test_mask_and_saliency_are_pasted_like_the_image(box_mix):
    batch = a_batch()
    batch["mask"] = batch["saliency"] = batch["image"][:, :1]
    mixed = box_mix(batch)
    assert torch.equal(mixed["mask"], mixed["image"][:, :1])
    assert torch.equal(mixed["saliency"], mixed["image"][:, :1])
    assert not torch.equal(mixed["image"], batch["image"])


def test_mixup_blends_the_mask():
    batch = a_batch()
    batch["mask"] = batch["image"][:, :1]
    mixed = Mixup(1.0)(batch)
    assert torch.equal(mixed["mask"], mixed["image"][:, :1])


def naive_box(y: int, x: int, lam: float) -> tuple[slice, slice]:
    """Naive version for one image, from the published code."""
    cut = (1 - lam) ** 0.5
    height, width = int(H * cut) // 2, int(W * cut) // 2
    rows = slice(max(y - height, 0), max(min(y + height, H), 0))
    return rows, slice(max(x - width, 0), max(min(x + width, W), 0))


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("kind", [CutMix, SaliencyMix])
def test_naive_loop(kind, per_image):
    batch, draws = a_batch(1), B if per_image else 1
    torch.manual_seed(0)
    mixed = kind(1.0, 1.0, per_image)(batch)
    torch.manual_seed(0)  # and the same draws again
    partner, lam = torch.randperm(B).tolist(), draw_lambda(1.0, draws, torch.device("cpu"))
    torch.rand(draws)
    centres = [torch.randint(side, (draws,)) for side in (H, W)]
    for i, j in enumerate(partner):
        k = i if per_image else 0
        y, x = (int(centre[k]) for centre in centres)
        if kind is SaliencyMix:
            y, x = divmod(int(batch["saliency"][j].argmax()), W)
        rows, columns = naive_box(y, x, lam[k].item())
        expected = batch["image"][i].clone()
        expected[:, rows, columns] = batch["image"][j][:, rows, columns]
        assert torch.equal(mixed["image"][i], expected)
        share = (rows.stop - rows.start) * (columns.stop - columns.start) / (H * W)
        label = torch.zeros(K)
        label[batch["label"][i]] += 1 - share
        label[batch["label"][j]] += share
        assert torch.allclose(mixed["label"][i], label)


def test_the_box_of_saliencymix_is_about_the_peak_of_the_source():
    """Sources have one salient pixel each; boxes away from the border are centered on it."""
    torch.manual_seed(0)
    peaks, saliency = torch.stack([torch.randint(10, 14, (B,)) for _ in "yx"], 1), []
    for y, x in peaks.tolist():
        saliency.append(torch.zeros(1, H, W))
        saliency[-1][0, y, x] = 1
    batch = an_indexed_batch() | {"saliency": torch.stack(saliency)}
    mixed = SaliencyMix(alpha=50.0, probability=1.0, per_image=True)(batch)
    for i, j in enumerate(partners(mixed).tolist()):
        if i != j:
            pasted = (mixed["image"][i, 0] == j).nonzero()
            assert (pasted == peaks[j]).all(1).any()
            assert torch.equal((pasted.amin(0) + pasted.amax(0) + 1) / 2, peaks[j].float())


def test_a_box_at_the_border_is_clipped():
    inside = spanned(torch.tensor([0, 9, 5]), torch.tensor([0.0]), 10).int()
    assert inside.sum(1).tolist() == [5, 6, 10]
    assert spanned(torch.tensor([4]), torch.tensor([1.0]), 10).sum() == 0


def test_two_mixes_in_a_row():
    torch.manual_seed(0)
    batch = an_indexed_batch()
    both = nn.Sequential(Mixup(1.0), CutMix())(batch)
    assert torch.allclose(both["label"].sum(1), torch.ones(B))
    expected = both["label"] @ torch.arange(B).float()
    assert torch.allclose(both["image"].mean((1, 2, 3)), expected, atol=1e-3)
    assert (both["label"] > 0).sum(1).max() > 2


def test_a_seed_decides_everything(mix):
    batch, results = a_batch(), []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(mix(batch))
    assert all(torch.equal(results[0][k], results[1][k]) for k in batch)


def test_the_batch_itself_is_left_alone(mix):
    batch = a_batch()
    before = {name: value.clone() for name, value in batch.items()}
    mix(batch)
    assert all(torch.equal(batch[k], before[k]) for k in batch)


@pytest.mark.parametrize("device", DEVICES)
def test_it_stays_on_the_device_and_never_waits_for_it(mix, device):
    batch = a_batch(device=device)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        mixed = mix(batch)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert {value.device.type for value in mixed.values()} == {device}


def test_saliencymix_says_what_it_lacks():
    batch = a_batch()
    del batch["saliency"]
    with pytest.raises(ValueError, match="set --data.saliency=true"):
        SaliencyMix()(batch)


def test_a_batch_is_mixed_by_mixup_by_cutmix_or_not_at_all():
    """Pixels of a mixup are sums of two images, those of CutMix come from one or the other."""
    torch.manual_seed(0)
    mix = MixupOrCutMix(probability=0.8, switch_probability=0.25)
    counts = dict.fromkeys(("not", "cutmix", "mixup"), 0)
    for _ in range(1000):
        mixed = mix(an_indexed_batch(size=4) | {"label": torch.arange(4)})
        if mixed["label"].amax(1).eq(1).all():
            counts["not"] += 1
            continue
        whole = mixed["image"].frac().eq(0).all()
        counts["cutmix" if whole else "mixup"] += 1
    # One permutation in 24 mixes each image with itself, and a CutMix box may be empty.
    shares = [count / 1000 for count in counts.values()]
    assert shares == pytest.approx([0.2 + 0.8 / 24, 0.2 * 23 / 24, 0.6 * 23 / 24], abs=0.05)


def test_without_probability_the_labels_are_one_hot_and_the_images_as_they_were():
    batch = a_batch()
    mixed = MixupOrCutMix(probability=0.0)(batch)
    assert torch.equal(mixed["image"], batch["image"])
    assert torch.equal(mixed["label"], F.one_hot(batch["label"], K).float())
