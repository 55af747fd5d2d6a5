"""SPMix's ratio grids and blends, against loops over pixels and patches."""

import pytest
import torch

from lightning_modules import ModelError
from lightning_modules.mixes import PatchMix, RandomPatchMix, SaliencyMixup
from lightning_modules.mixes.spmix import blend
from lightning_modules.networks import HybridViT, TimmNetwork

COUNTS = [60, 600, 6]
GRID = (4, 4)
ORDERS = ["paper", "code"]


def view(pairs=3, size=32, seed=0, labels=(0, 1)):
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * pairs
    return {
        "image": torch.rand(rows, 3, size, size, generator=generator),
        # Of so few bits that a mean over a patch is exact, in whatever order it is summed.
        "saliency": torch.randint(257, (rows, 1, size, size), generator=generator) / 256,
        "label": torch.tensor(labels).repeat(pairs),
    }


def mix(kind=PatchMix, **options):
    return kind(**{"class_counts": COUNTS, "noise": 0.0} | options)


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
    ratio = mix(floor=floor, clip=clip).ratio(batch, GRID)
    for i in range(3):
        merged = torch.maximum(batch["saliency"][2 * i, 0], batch["saliency"][2 * i + 1, 0])
        expected = min_max(patch.mean() for patch in patches(merged))
        expected = (expected * (1 - floor) + floor).clamp(max=clip)
        torch.testing.assert_close(ratio[i].flatten(), expected)


@pytest.mark.parametrize(("floor", "clip"), [(0.0, 0.8), (0.5, 0.8), (0.0, 1.0)])
def test_ratio_of_the_code_by_a_loop(floor, clip):
    batch = view()
    ratio = mix(order="code", floor=floor, clip=clip).ratio(batch, GRID)
    for i in range(3):
        both = [
            min_max(patch.mean() for patch in patches(batch["saliency"][row, 0]))
            for row in (2 * i, 2 * i + 1)
        ]
        expected = (torch.maximum(*both) * (1 - floor) + floor).clamp(max=clip)
        torch.testing.assert_close(ratio[i].flatten(), expected)


@pytest.mark.parametrize("kind", [PatchMix, RandomPatchMix])
@pytest.mark.parametrize("order", ORDERS)
def test_ratios_are_from_floor_to_clip(kind, order):
    ratio = mix(kind, order=order, floor=0.3, clip=0.8, noise=2.0).ratio(view(50), GRID)
    assert ratio.min() >= 0.3
    assert ratio.max() <= 0.8
    assert torch.equal(ratio.flatten(1).amax(1), torch.full((50,), 0.8))
    if order == "paper":
        assert torch.equal(ratio.flatten(1).amin(1), torch.full((50,), 0.3))


@pytest.mark.parametrize("order", ORDERS)
def test_ratio_of_a_pair_is_the_same_both_ways(order):
    batch = view()
    swapped = batch | {"saliency": batch["saliency"].unflatten(0, (-1, 2)).flip(1).flatten(0, 1)}
    module = mix(order=order)
    assert torch.equal(module.ratio(batch, GRID), module.ratio(swapped, GRID))


@pytest.mark.parametrize("order", ORDERS)
def test_flipped_pair_has_the_flipped_grid(order):
    batch = view()
    module = mix(order=order)
    ratio = module.ratio(batch | {"saliency": batch["saliency"].flip(3)}, GRID)
    torch.testing.assert_close(ratio, module.ratio(batch, GRID).flip(2))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("constant", [0.0, 0.3, 0.7])
def test_constant_maps_have_a_ratio(order, constant):
    batch = view()
    batch["saliency"] = torch.full_like(batch["saliency"], constant)
    ratio = mix(order=order, noise=0.5).ratio(batch, GRID)
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
    first = mix(noise=0.5).ratio(view(), GRID)
    second = mix(noise=0.5).ratio(view(), GRID)
    torch.manual_seed(7)
    assert torch.equal(mix(noise=0.5).ratio(view(), GRID), first)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    mix().ratio(view(), GRID)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("labels", "mixed"), [((0, 1), True), ((1, 0), False), ((2, 0), True), ((0, 0), False)]
)
def test_only_anchors_that_are_rarer_are_mixed(labels, mixed):
    ratio = mix().ratio(view(labels=labels), GRID)
    assert (ratio < 1).any() == mixed
    assert (mix(only_rarer=False).ratio(view(labels=labels), GRID) < 1).any()


@torch.no_grad()
def test_order_of_the_patches_is_that_of_the_tokens(encoder):
    """A partner that differs in one patch only changes the tokens that see it, and no others."""
    plain = HybridViT("test_vit", pretrained=False, options={"patch_size": 8}, size=32).eval()
    batch = view(pairs=1)
    batch["saliency"] = torch.ones_like(batch["saliency"])
    batch["saliency"][:, :, 8:16, 24:] = 0  # row 1, column 3
    module = mix(clip=1.0)
    tokens = plain.tokens(batch["image"])
    seen = {}
    plain.encode_tokens = lambda mixed: seen.setdefault("tokens", mixed)
    module.encode(plain, batch)
    partners = (seen["tokens"][0] != tokens[0]).any(1).nonzero().flatten().tolist()
    assert partners == [1 * 4 + 3]
    assert torch.equal(seen["tokens"][0, 7], tokens[1, 7])  # ratio 0: the partner's


@torch.no_grad()
@pytest.mark.parametrize("kind", [PatchMix, RandomPatchMix, SaliencyMixup])
def test_ratio_one_is_no_mixing_bit_for_bit(encoder, kind):
    """Against the same operations on as many rows, or a processor may sum in another order."""
    batch = view()
    module = mix(kind, floor=1.0, clip=1.0)
    if kind is SaliencyMixup:
        expected = encoder.encode(batch["image"][::2])
    else:
        expected = encoder.encode_tokens(encoder.tokens(batch["image"])[::2])
    torch.testing.assert_close(module.encode(encoder, batch), expected, rtol=0, atol=0)


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
    module.encode(encoder_like, batch)
    merged = torch.maximum(batch["saliency"][0, 0], batch["saliency"][1, 0])
    ratio = min_max(merged.flatten()).view(32, 32).clamp(max=0.8)
    expected = ratio * batch["image"][0] + (1 - ratio) * batch["image"][1]
    torch.testing.assert_close(seen["x"][0], expected)


@torch.no_grad()
def test_halves_are_mixed_in_float32_and_stay_halves():
    encoder = HybridViT("test_vit", pretrained=False, size=32).eval().bfloat16()
    vectors = mix().encode(encoder, view())
    assert vectors.dtype == torch.bfloat16
    assert vectors.isfinite().all()


def test_partners_have_gradients():
    network = HybridViT("test_vit", pretrained=False, size=32)
    batch = view(pairs=1)
    batch["image"].requires_grad_()
    vectors = mix().encode(network, batch)
    (vectors * torch.randn_like(vectors)).sum().backward()
    assert (batch["image"].grad.abs().sum((1, 2, 3)) > 0).all()


def test_what_is_missing_is_said():
    batch = view()
    del batch["saliency"]
    with pytest.raises(ModelError, match="set data.saliency"):
        mix().ratio(batch, GRID)
    assert mix(RandomPatchMix).ratio(batch, GRID).shape == (3, *GRID)
    with pytest.raises(ModelError, match="HybridViT"):
        mix().encode(TimmNetwork("test_resnet", pretrained=False), view())
    with pytest.raises(ModelError, match="class_counts"):
        PatchMix()
    with pytest.raises(ModelError, match="floor=0.9"):
        mix(floor=0.9)
