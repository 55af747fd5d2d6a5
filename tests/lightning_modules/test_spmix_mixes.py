"""Ratio grids and mixes of SPMix, against loops over pixels and patches."""

import pytest
import torch

from lightning_modules import ModelError
from lightning_modules.mixes import (
    FillingPatchMix,
    PairMixup,
    PatchMix,
    RandomPatchMix,
    SaliencyMixup,
    SalientHalfMix,
)
from lightning_modules.mixes.spmix import blend
from lightning_modules.networks import HybridViT, TimmNetwork

GRID = (4, 4)
MERGES = ["maps", "ratios", "anchor"]


def view(pairs=3, size=32, seed=0, labels=(0, 1)):
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * pairs
    return {
        "image": torch.rand(rows, 3, size, size, generator=generator),
        # Few bits, so that the mean over a patch is exact in any order of summation.
        "saliency": torch.randint(257, (rows, 1, size, size), generator=generator) / 256,
        "label": torch.tensor(labels).repeat(pairs),
    }


def mix(kind=PatchMix, **options):
    return kind(**{"noise": 0.0} | options)


def mixed(module, batch, grid=GRID):
    """The batch with the ratios of its pairs."""
    return module(batch, grid, module.choose(batch["label"][::2]))


def ratio_of(module, batch, grid=GRID):
    return mixed(module, batch, grid)["ratio"]


def encoded(module, encoder, batch):
    return module.encode(encoder, mixed(module, batch, module.grid(encoder, batch)))


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return HybridViT("test_vit", pretrained=False, cnn="test_resnet", cnn_stages=2, size=32).eval()


def patches(saliency, size=8):
    """The patches of a map (H, W), row by row."""
    rows, columns = (side // size for side in saliency.shape)
    return [
        saliency[i * size : (i + 1) * size, j * size : (j + 1) * size]
        for i in range(rows)
        for j in range(columns)
    ]


def min_max(values):
    values = torch.stack(list(values))
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize(("floor", "clip"), [(0.0, 0.8), (0.5, 0.8), (0.0, 1.0)])
def test_ratio_of_the_paper_by_a_loop(floor, clip):
    batch = view()
    ratio = ratio_of(mix(floor=floor, clip=clip), batch)
    for i in range(3):
        merged = torch.maximum(batch["saliency"][2 * i, 0], batch["saliency"][2 * i + 1, 0])
        expected = min_max(patch.mean() for patch in patches(merged))
        expected = (expected * (1 - floor) + floor).clamp(max=clip)
        torch.testing.assert_close(ratio[i].flatten(), expected)


@pytest.mark.parametrize(("floor", "clip"), [(0.0, 0.8), (0.5, 0.8), (0.0, 1.0)])
def test_ratio_of_the_code_by_a_loop(floor, clip):
    batch = view()
    ratio = ratio_of(mix(merge="ratios", floor=floor, clip=clip), batch)
    for i in range(3):
        both = [
            min_max(patch.mean() for patch in patches(batch["saliency"][row, 0]))
            for row in (2 * i, 2 * i + 1)
        ]
        expected = (torch.maximum(*both) * (1 - floor) + floor).clamp(max=clip)
        torch.testing.assert_close(ratio[i].flatten(), expected)


@pytest.mark.parametrize("kind", [RandomPatchMix, PairMixup])
def test_ratios_without_maps_are_drawn_evenly(kind):
    batch = view(4000)
    del batch["saliency"]
    torch.manual_seed(0)
    ratio = ratio_of(mix(kind, floor=0.5, clip=0.8), batch, (2, 2))
    if kind is PairMixup:
        assert torch.equal(ratio, ratio[:, :1, :1].expand(-1, 2, 2))
        ratio = ratio[:, 0, 0]
    quantiles = torch.quantile(ratio.flatten(), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    expected = torch.tensor([0.5, 0.575, 0.65, 0.725, 0.8])
    deviation = 0.3 * 0.5 / ratio.numel() ** 0.5  # of the median, the least certain estimate
    torch.testing.assert_close(quantiles, expected, rtol=0, atol=5 * deviation)


def test_the_more_salient_half_is_kept():
    batch = view(50)
    ratio = ratio_of(mix(SalientHalfMix, merge="ratios", floor=0.5, clip=0.8), batch)
    for i in range(50):
        kept = []
        for row in (2 * i, 2 * i + 1):
            means = torch.stack([p.mean() for p in patches(batch["saliency"][row, 0])])
            kept.append(set(means.argsort(descending=True)[:9].tolist()))  # with the lower median
        unmixed = (ratio[i].flatten() == 1).nonzero().flatten().tolist()
        assert set(unmixed) == kept[0] | kept[1]
    others = ratio[ratio < 1]
    assert others.min() >= 0.5
    assert others.max() <= 0.8


@pytest.mark.parametrize("merge", MERGES)
def test_ratios_are_from_floor_to_clip(merge):
    ratio = ratio_of(mix(merge=merge, floor=0.3, clip=0.8, noise=2.0), view(50))
    assert ratio.min() >= 0.3
    assert ratio.max() <= 0.8
    assert torch.equal(ratio.flatten(1).amax(1), torch.full((50,), 0.8))
    if merge != "ratios":  # these take the larger one
        assert torch.equal(ratio.flatten(1).amin(1), torch.full((50,), 0.3))


@pytest.mark.parametrize("merge", ["maps", "ratios"])
def test_ratio_of_a_pair_is_the_same_both_ways(merge):
    batch = view()
    swapped = batch | {"saliency": batch["saliency"].unflatten(0, (-1, 2)).flip(1).flatten(0, 1)}
    module = mix(merge=merge)
    assert torch.equal(ratio_of(module, batch), ratio_of(module, swapped))


@pytest.mark.parametrize("merge", MERGES)
def test_flipped_pair_has_the_flipped_grid(merge):
    batch = view()
    module = mix(merge=merge)
    ratio = ratio_of(module, batch | {"saliency": batch["saliency"].flip(3)})
    torch.testing.assert_close(ratio, ratio_of(module, batch).flip(2))


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("constant", [0.0, 0.3, 0.7])
def test_constant_maps_have_a_ratio(merge, constant):
    batch = view()
    batch["saliency"] = torch.full_like(batch["saliency"], constant)
    ratio = ratio_of(mix(merge=merge, noise=0.5), batch)
    assert torch.equal(ratio, torch.full((3, *GRID), 0.8))


def test_noise_is_in_standard_deviations_of_the_map():
    maps = torch.rand(2, 1, 256, 256)
    maps[1] *= 0.1
    torch.manual_seed(0)
    for noise in (0.5, 2.0):
        added = mix(noise=noise).noisy(maps) - maps
        unit = maps.flatten(1).std(1)
        extent = added.flatten(1).abs().amax(1) / unit
        torch.testing.assert_close(extent, torch.full((2,), noise), rtol=1e-3, atol=0)
        torch.testing.assert_close(
            added.flatten(1).std(1) / unit, torch.full((2,), noise / 3**0.5), rtol=0.01, atol=0
        )


def test_noise_is_torchs_and_none_is_none():
    torch.manual_seed(7)
    first = ratio_of(mix(noise=0.5), view())
    second = ratio_of(mix(noise=0.5), view())
    torch.manual_seed(7)
    assert torch.equal(ratio_of(mix(noise=0.5), view()), first)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    ratio_of(mix(), view())
    assert torch.equal(torch.get_rng_state(), state)


def test_anchors_own_map_is_its_alone():
    batch = view()
    module = mix(merge="anchor")
    other = batch | {"saliency": batch["saliency"].clone()}
    other["saliency"][1::2] = torch.rand(3, 1, 32, 32)
    assert torch.equal(ratio_of(module, batch), ratio_of(module, other))


def test_masks_guide_as_saliency_does():
    batch = view()
    other = {"mask": batch["saliency"], "image": batch["image"], "label": batch["label"]}
    assert torch.equal(ratio_of(mix(guide="mask"), other), ratio_of(mix(), batch))
    with pytest.raises(ModelError, match="set --data.mask=true"):
        ratio_of(mix(guide="mask"), batch)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_share_of_the_pairs_is_mixed(probability):
    torch.manual_seed(0)
    batch = view(4000, size=2)
    ratio = ratio_of(mix(probability=probability, noise=0.5), batch, (2, 2))
    share = (ratio < 1).any((1, 2)).float().mean()
    deviation = (probability * (1 - probability) / 4000) ** 0.5
    assert abs(share - probability) <= 5 * deviation


def test_classes_are_filled_up_with_mixes():
    torch.manual_seed(0)
    counts = [60, 600, 6]
    label = torch.arange(3).repeat_interleave(4000)
    chosen = mix(FillingPatchMix, class_counts=counts).choose(label).view(3, 4000).float().mean(1)
    expected = 1 - torch.tensor(counts) / 600
    deviation = (expected * (1 - expected) / 4000).sqrt()
    assert (abs(chosen - expected) <= 5 * deviation).all()


@torch.no_grad()
def test_order_of_the_patches_is_that_of_the_tokens(encoder):
    """Only the token of the one mixed patch changes."""
    plain = HybridViT("test_vit", pretrained=False, options={"patch_size": 8}, size=32).eval()
    batch = view(pairs=1)
    batch["saliency"] = torch.ones_like(batch["saliency"])
    batch["saliency"][:, :, 8:16, 24:] = 0  # row 1, column 3
    module = mix(floor=0.0, clip=1.0)
    tokens = plain.tokens(batch["image"])
    seen = {}
    plain.encode_tokens = lambda mixed: seen.setdefault("tokens", mixed)
    encoded(module, plain, batch)
    partners = (seen["tokens"][0] != tokens[0]).any(1).nonzero().flatten().tolist()
    assert partners == [1 * 4 + 3]
    assert torch.equal(seen["tokens"][0, 7], tokens[1, 7])  # ratio 0: the partner's


@torch.no_grad()
@pytest.mark.parametrize("kind", [PatchMix, RandomPatchMix, SaliencyMixup, PairMixup])
def test_ratio_one_is_no_mixing_bit_for_bit(encoder, kind):
    """Compared with unmixed rows in a batch of equal size, as its size may affect rounding."""
    batch = view()
    module = mix(kind, floor=1.0, clip=1.0)
    if kind in (SaliencyMixup, PairMixup):
        expected = encoder.encode(batch["image"][::2])
    else:
        expected = encoder.encode_tokens(encoder.tokens(batch["image"])[::2])
    torch.testing.assert_close(encoded(module, encoder, batch), expected, rtol=0, atol=0)


@torch.no_grad()
def test_swapping_a_pair_and_its_ratio_is_the_same_image():
    tokens, ratio = torch.rand(4, 5, 6), torch.rand(2, 5, 1)
    swapped = tokens.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    torch.testing.assert_close(blend(tokens, ratio), blend(swapped, 1 - ratio))


@torch.no_grad()
def test_images_are_mixed_by_the_pixel(encoder):
    batch = view()
    module = mix(SaliencyMixup)
    seen = {}
    encoder_like = type("Encoder", (), {"encode": lambda _, images: seen.setdefault("x", images)})()
    encoded(module, encoder_like, batch)
    merged = torch.maximum(batch["saliency"][0, 0], batch["saliency"][1, 0])
    ratio = (0.5 + min_max(merged.flatten()).view(32, 32) / 2).clamp(max=0.8)
    expected = ratio * batch["image"][0] + (1 - ratio) * batch["image"][1]
    torch.testing.assert_close(seen["x"][0], expected)


@torch.no_grad()
def test_halves_are_mixed_in_float32_and_stay_halves():
    encoder = HybridViT("test_vit", pretrained=False, size=32).eval().bfloat16()
    vectors = encoded(mix(), encoder, view())
    assert vectors.dtype == torch.bfloat16
    assert vectors.isfinite().all()


def test_partners_have_gradients():
    network = HybridViT("test_vit", pretrained=False, size=32)
    batch = view(pairs=1)
    batch["image"].requires_grad_()
    vectors = encoded(mix(), network, batch)
    (vectors * torch.randn_like(vectors)).sum().backward()
    assert (batch["image"].grad.abs().sum((1, 2, 3)) > 0).all()


def test_what_is_missing_is_said():
    batch = view()
    del batch["saliency"]
    with pytest.raises(ModelError, match="set --data.saliency=true"):
        ratio_of(mix(), batch)
    assert ratio_of(mix(RandomPatchMix), batch).shape == (3, *GRID)
    with pytest.raises(ModelError, match="HybridViT"):
        encoded(mix(), TimmNetwork("test_resnet", pretrained=False), view())
    with pytest.raises(ModelError, match="probability=1.5"):
        mix(probability=1.5)
    with pytest.raises(ModelError, match="floor=0.9"):
        mix(floor=0.9)
