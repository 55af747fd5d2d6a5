"""Tests of k-means, JPEG, WebP and the autoencoder."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_modules import ModelError
from lightning_modules.codecs import JPEG, Autoencoder, EdgeFilter, KMeans, ScaleHyperprior, WebP
from lightning_modules.codecs.codec import centred, from_centred
from lightning_modules.codecs.cosine_initialization import cosines, initialize_with_cosines
from lightning_modules.codecs.kmeans import nearest


def smooth(images: int = 4, size: int = 32) -> torch.Tensor:
    """Smooth 8-bit images, similar to photographs."""
    torch.manual_seed(0)
    coarse = torch.rand(images, 3, 4, 4)
    fine = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return (fine * 255).round() / 255


def error(codec, images) -> torch.Tensor:
    return (codec(images).image - images).square().mean((1, 2, 3))


@pytest.mark.parametrize("colours", [1, 5, 16])
def test_kmeans_loses_nothing_with_a_palette_of_all_colours(colours):
    torch.manual_seed(colours)
    palette = torch.randint(0, 255, (2, colours, 3)).float()
    # Two similar colors and some rare ones, which seeding could miss.
    palette[:, -1] = palette[:, 0] + 1
    index = torch.randint(0, colours, (2, 256)) * (torch.rand(2, 256) < 0.3)
    index[:, :colours] = torch.arange(colours)
    images = palette.gather(1, index[..., None].expand(-1, -1, 3)).mT.reshape(2, 3, 16, 16)
    images = images.div(255)
    assert torch.equal(KMeans(colours)(images).image, images)
    assert torch.equal(KMeans(colours + 3)(images).image, images)


def test_kmeans_is_lloyds():
    """Compare with a naive loop from the same seeds; in float64, because of near ties."""
    images, codec = smooth(1).double(), KMeans(k=6, iterations=3)
    pixels = (images * 255).flatten(2).mT.round()
    centroids = codec.seeds(pixels)[0].clone()
    for _ in range(3):
        members: list[list[torch.Tensor]] = [[] for _ in range(6)]
        for pixel in pixels[0]:
            members[int((centroids - pixel).square().sum(1).argmin())].append(pixel)
        centroids = torch.stack([torch.stack(m).mean(0) for m in members])
    palette, index = codec.encode(images)
    assert torch.equal(palette[0], centroids.round())
    assert torch.equal(index.flatten(1), nearest(pixels, palette))


def test_kmeans_seeds_are_colours_in_proportion_to_squared_distance():
    """By definition no seed repeats a color, and distant colors are drawn before near ones."""
    pixels = torch.tensor([[0.0, 0, 0]] * 90 + [[1.0, 0, 0]] * 9 + [[200.0, 0, 0]])[None]
    assert KMeans(k=3).seeds(pixels)[0, :, 0].tolist() == [0, 200, 1]


@pytest.mark.usefixtures("float64")
def test_kmeans_gives_an_image_one_palette_whatever_the_batch(monkeypatch):
    images = smooth().double()
    alone = torch.cat([KMeans(8)(image[None]).image for image in images])
    assert torch.equal(KMeans(8)(images).image, alone)
    monkeypatch.setattr("lightning_modules.codecs.kmeans.DISTANCES", 1)
    assert torch.equal(KMeans(8)(images).image, alone)


@pytest.mark.parametrize(("k", "times"), [(16, 6), (256, 3)])
def test_kmeans_rates_are_those_of_the_source(k, times):
    bits = KMeans(k, iterations=0)(smooth(1, size=128)).bits.item()
    assert (bits - 24 * k) * times == 24 * 128 * 128


def test_kmeans_of_no_colours_is_refused():
    with pytest.raises(ModelError, match="set k to 1 or more"):
        KMeans(0)


@pytest.mark.parametrize("codec", [JPEG, WebP])
def test_files_are_counted_whole_and_fit(codec):
    images = smooth(size=64)
    files = codec(bits_per_pixel=1.5).encode(images)
    bits = codec(bits_per_pixel=1.5)(images).bits
    assert bits.tolist() == [8 * len(file) for file in files]
    assert (bits <= 1.5 * 64 * 64).all()
    opened = np.array(Image.open(io.BytesIO(files[0])).convert("RGB"))
    seen = codec(bits_per_pixel=1.5)(images).image[0] * 255
    assert np.array_equal(opened, seen.round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize("codec", [JPEG, WebP])
def test_bisection_finds_the_best_quality_that_fits(codec):
    image = (smooth(1, size=64)[0] * 255).byte().permute(1, 2, 0).numpy()
    sizes = [len(codec(quality=q).file(image)) for q in range(101)]
    allowed = (sizes[40] + sizes[41]) / 2
    file = codec(bits_per_pixel=8 * allowed / 64**2).file(image)
    assert len(file) <= allowed
    # Sizes may repeat and need not be monotonic, but no much larger file would have fitted.
    assert len(file) >= 0.97 * max(size for size in sizes if size <= allowed)


@pytest.mark.parametrize("codec", [JPEG, WebP])
def test_more_bits_are_a_better_image_and_out_of_reach_is_the_end_of_the_scale(codec):
    images = smooth(size=64)
    assert (error(codec(bits_per_pixel=3), images) < error(codec(bits_per_pixel=1), images)).all()
    most, least = codec(quality=100)(images), codec(quality=0)(images)
    assert torch.equal(codec(bits_per_pixel=1000.0)(images).image, most.image)
    assert torch.equal(codec(bits_per_pixel=0.001)(images).image, least.image)


def test_colours_of_half_the_resolution():
    images = smooth(1, size=64)
    whole, half = JPEG(quality=90)(images), JPEG(quality=90, halve_colours=True)(images)
    assert half.bits < whole.bits
    checks = torch.zeros(1, 3, 64, 64)
    checks[:, 0] = (torch.arange(64)[:, None] + torch.arange(64)) % 2  # red and black pixels
    assert error(JPEG(quality=100, halve_colours=True), checks) > 0.04
    assert error(JPEG(quality=100), checks) < 1e-4


def test_a_file_has_a_rate_or_a_quality():
    for options in ({}, {"bits_per_pixel": 1.0, "quality": 50}):
        with pytest.raises(ModelError, match="either bits_per_pixel or quality"):
            JPEG(**options)


@pytest.mark.parametrize(("channels", "times"), [(8, 6), (16, 3), (32, 1.5)])
def test_latent_is_smaller_by_exactly_the_sources_ratio(channels, times):
    images = smooth(1, size=128)
    seen = Autoencoder(channels)(images)
    assert images.numel() == 49152
    assert seen.latent.numel() * times == images.numel()
    assert seen.image.shape == images.shape
    assert seen.bits is None


def test_pixels_beyond_their_range_are_cut_and_led_back():
    outputs = torch.tensor([-9.0, 0.0, 9.0], requires_grad=True)
    assert from_centred(outputs).tolist() == [0, 0.5, 1]
    images = torch.rand(2, 3, 4, 4)
    assert torch.allclose(from_centred(centred(images)), images, atol=1e-6)
    (too_high,) = torch.autograd.grad(from_centred(outputs).sum(), outputs)
    (too_low,) = torch.autograd.grad(-from_centred(outputs).sum(), outputs)
    assert too_high.tolist() == [
        0,
        0.25,
        0.25,
    ]  # gradient descent would lower it; at 0, out of range
    assert too_low.tolist() == [-0.25, -0.25, 0]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("physical", [lambda: None, EdgeFilter], ids=["image", "edges"])
def test_autoencoder_begins_as_cosines_of_blocks(physical):
    """48 coefficients are lossless, 8 lose the rest; the first holds the mean of its block."""
    images = smooth(2).double()
    assert error(Autoencoder(48, 16, physical()).double(), images).max() < 1e-6
    codec = Autoencoder(8, 16, physical()).double()
    blocks = centred(images).unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
    # The basis is computed in float32, and the kernels are products of it.
    basis = cosines(4, 48).flatten(1).double()
    assert torch.allclose(basis @ basis.T, torch.eye(48, dtype=torch.float64), atol=1e-6)
    coefficients = blocks @ basis.T
    latent = codec.encode(images).permute(0, 2, 3, 1)
    assert torch.allclose(latent, coefficients[..., :8], atol=1e-5)
    assert torch.allclose(latent[..., 0], blocks.mean(-1) * math.sqrt(48), atol=1e-5)
    assert 0 < error(codec, images).max() < 0.02


@pytest.mark.parametrize("kernel", [4, 5])
def test_layers_begin_as_an_orthogonal_projection_that_keeps_colours(kernel):
    into, out = [3, 14, 30, 60], [60, 30, 14, 3]  # of at most 12, 48 and 120 independent channels
    down = [nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in itertools.pairwise(into)]
    options = {"stride": 2, "padding": kernel // 2 - (kernel == 4), "output_padding": kernel % 2}
    up = [nn.ConvTranspose2d(a, b, kernel, **options) for a, b in itertools.pairwise(out)]
    analysis, synthesis = nn.Sequential(*down), nn.Sequential(*up)
    initialize_with_cosines(analysis, synthesis)
    analysis, synthesis = analysis.double(), synthesis.double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    latent = analysis(images)
    seen = synthesis(latent)
    assert torch.allclose(latent.square().sum(), seen.square().sum(), rtol=1e-4)
    inner = ((images - seen) * seen).sum((1, 2, 3))
    assert inner.abs().max() < 1e-2
    assert 0.2 < seen.square().sum() / images.square().sum() < 0.4  # 60 of 192
    flat = torch.rand(2, 3, 1, 1, dtype=torch.float64).expand(-1, -1, 32, 32)
    assert torch.allclose(synthesis(analysis(flat)), flat, atol=1e-5)


def test_the_hyperprior_begins_as_a_codec():
    images = smooth(4, size=64)
    codec = ScaleHyperprior(32, 48).eval()
    assert error(codec, images).max() < 0.005
    assert torch.isfinite(codec(images).bits).all()


@pytest.mark.parametrize("codec", [Autoencoder, ScaleHyperprior])
def test_narrow_codecs_begin_with_the_coarsest_cosines(codec):
    assert error(codec(width=6, latent_channels=6).eval(), smooth(2, size=64)).max() < 0.02


def test_all_of_an_autoencoder_learns():
    codec = Autoencoder(50, width=16)
    optimizer = torch.optim.SGD(codec.parameters(), lr=0.1)
    before = {name: value.clone() for name, value in codec.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        (codec.g_s(codec.encode(smooth(2))) - 1).square().mean().backward()
        optimizer.step()
    for name, value in codec.named_parameters():
        rows = (
            (value != before[name]).flatten(1).any(1) if value.ndim > 1 else value != before[name]
        )
        assert rows.all(), name


def test_autoencoder_overfits_an_image():
    images = smooth(1)
    codec = Autoencoder(8, width=16)
    optimizer = torch.optim.Adam(codec.parameters(), lr=5e-3)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        losses.append((codec(images).image - images).abs().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0] < 0.015


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ModelError, match="32 x 30.*multiple of 4"):
        Autoencoder()(smooth(1)[..., :30])


def test_reconstruction_is_in_full_precision_under_autocast():
    images, codec = smooth(1), Autoencoder(width=12).eval()
    with torch.autocast("cpu", torch.bfloat16):
        seen = codec(images)
    assert seen.image.dtype == torch.float32
    assert torch.equal(seen.image, codec(images).image)


def test_edge_filter_starts_as_sobel_and_laplacian():
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) / 8  # exact in float32
    edges = EdgeFilter(concatenate=False)(ramp)[..., 1:-1, 1:-1].view(3, 3, 6, 6)
    assert (edges[1] == 1 / 8).all()  # d/dx of all colors
    assert not edges[[0, 2]].any()  # Laplacian, d/dy
    bump = torch.zeros(1, 3, 5, 5)
    bump[..., 2, 2] = 1
    assert EdgeFilter(concatenate=False)(bump).view(3, 3, 5, 5)[0, :, 2, 2].tolist() == [-1] * 3


@pytest.mark.parametrize(("concatenate", "channels"), [(True, 12), (False, 9)])
def test_edge_filter_stays_blind_to_what_is_flat(concatenate, channels):
    layer = EdgeFilter(concatenate)
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    before = layer(smooth(2)).detach()
    layer(smooth(2)).square().sum().backward()
    optimizer.step()
    after = layer(smooth(2))
    assert after.shape[1] == layer.channels == channels
    assert not torch.allclose(after, before)
    flat = layer(torch.full((1, 3, 8, 8), 0.7))[:, channels - 9 :]
    assert flat.abs().max() < 1e-4 * layer.filter.weight.abs().max()


def test_autoencoder_behind_an_edge_filter_still_gives_images():
    codec = Autoencoder(8, width=16, physical=EdgeFilter(concatenate=False))
    seen = codec(smooth(2))
    assert seen.image.shape == (2, 3, 32, 32)
    seen.image.sum().backward()
    weight = codec.g_a[0].filter.parametrizations.weight.original
    assert weight.grad.abs().sum() > 0
    assert math.isclose(weight.grad.mean((2, 3)).abs().max(), 0, abs_tol=1e-3)
