"""Entropy models, and streams that decode to the same tensor on other machines."""

import math
import subprocess
import sys

import pytest
import torch
from scipy.stats import norm

from lightning_modules.codecs import ScaleHyperprior
from lightning_modules.codecs.codec import centred
from lightning_modules.codecs.entropy import FactorizedPrior, gaussian_bits, lower_bound
from lightning_modules.codecs.hyperprior import GDN, fixed_point
from lightning_modules.errors import ModelError


@pytest.fixture
def codec():
    """A hyperprior whose latents are a few units large, as after training."""
    torch.manual_seed(0)
    codec = ScaleHyperprior(width=12, latent_channels=12)
    codec.g_a[-1].weight.data *= 3
    codec.h_a[-1].weight.data *= 30
    torch.nn.init.normal_(codec.h_s[-1].bias, mean=1.5, std=0.5)
    return codec.eval()


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(3, 3, 64, 48)


def test_bits_of_a_gaussian():
    values, log_scale = torch.tensor([0.0, 1.0, -3.0, 7.0]), torch.tensor([0.0, 0.5, 1.0, 0.0])
    each = zip(values.tolist(), log_scale.exp().tolist(), strict=True)
    mass = [norm.sf(abs(v) - 0.5, 0, s) - norm.sf(abs(v) + 0.5, 0, s) for v, s in each]
    expected = [-math.log2(max(p, 1e-9)) for p in mass]
    assert gaussian_bits(values, log_scale).tolist() == pytest.approx(expected, rel=1e-4)


def test_lower_bound_lets_through_what_would_rise():
    x = torch.tensor([0.0, 0.0, 2.0], requires_grad=True)
    bounded = lower_bound(x, 1.0)
    assert bounded.tolist() == [1, 1, 2]
    bounded.backward(torch.tensor([-1.0, 1.0, 1.0]))
    assert x.grad.tolist() == [-1, 0, 1]


def test_factorized_prior_is_a_density():
    torch.manual_seed(0)
    prior = FactorizedPrior(4)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    grid = torch.arange(-3000, 3001.0).view(1, 1, -1, 1).expand(1, 4, -1, 1)
    logits = prior.logits(grid)
    assert (logits.diff(dim=2) >= 0).all()
    assert prior.likelihood(grid).sum(2).flatten().tolist() == pytest.approx([1] * 4, abs=1e-3)


def test_factorized_prior_learns_a_distribution():
    torch.manual_seed(0)
    prior, optimizer = (p := FactorizedPrior(1)), torch.optim.Adam(p.parameters(), lr=2e-2)
    for _ in range(300):
        values = (2 * torch.randn(1, 1, 512, 1) + 3).round()
        optimizer.zero_grad()
        prior(values + torch.rand_like(values) - 0.5).mean().backward()
        optimizer.step()
    integers = torch.arange(-10.0, 20)
    mass = torch.tensor([norm.cdf(i + 0.5, 3, 2) - norm.cdf(i - 0.5, 3, 2) for i in integers])
    entropy = -(mass * mass.clamp(min=1e-12).log2()).sum()
    bits = prior(integers.view(1, 1, -1, 1)).flatten().detach()
    assert (mass * bits).sum().item() == pytest.approx(entropy.item(), rel=0.05)
    prior.update()
    assert prior.table.argmax() - 31 == 3


def test_gdn_is_the_papers_and_its_inverse_undoes_a_diagonal_one():
    torch.manual_seed(0)
    x, layer = torch.randn(2, 3, 4, 4), GDN(3)
    beta, gamma = layer.beta.square(), layer.gamma.square()
    for i in range(3):
        norm_ = beta[i] + sum(gamma[i, j] * x[:, j] ** 2 for j in range(3))
        assert torch.allclose(layer(x)[:, i], x[:, i] / norm_.sqrt(), atol=1e-6)
    assert torch.allclose(GDN(3, inverse=True)(x) * layer(x), x * x, atol=1e-5)


def test_streams_decode_to_the_reconstruction(codec, images):
    streams, seen = codec.compress(images), codec(images)
    assert torch.equal(codec.decompress(streams), seen.image)
    assert seen.bits.tolist() == [8 * len(stream) for stream in streams]
    assert torch.equal(seen.latent, seen.latent.round())
    assert seen.latent.abs().max() > 3


def test_counted_bits_are_the_estimated_ones(codec, images):
    """Up to the rounding of scales and 48 bits for the header and the last word."""
    codec.update()
    latent, hyper = codec.latents(images)
    log_scale = codec.h_s(hyper)[..., : latent.shape[2], : latent.shape[3]]
    log_scale = log_scale.clamp(math.log(0.11), math.log(256))
    each = codec.prior(hyper), gaussian_bits(latent, log_scale)
    estimate = sum(bits.flatten(1).sum(1) for bits in each)
    counted = codec(images).bits
    assert (counted > 0.99 * estimate).all()
    assert (counted < 1.01 * estimate + 48).all()


def test_wild_latents_are_clipped_and_still_decode(codec, images):
    codec.g_a[-1].weight.data *= 1e4
    codec.h_a[-1].weight.data *= 1e4
    seen = codec(images)
    assert seen.latent.abs().max() == 1023
    assert torch.equal(codec.decompress(codec.compress(images)), seen.image)


def test_training_adds_noise_and_gives_bits_with_a_gradient(codec, images):
    codec.train()
    with pytest.raises(ModelError, match="call eval"):
        codec.compress(images)
    seen = codec(images)
    difference = (seen.latent - codec.eval().g_a(centred(images))).detach()
    assert difference.abs().max() <= 0.5 + 1e-4
    assert difference.std() == pytest.approx(12**-0.5, rel=0.1)
    seen.bits.sum().backward()
    gradients = {n: p.grad for n, p in codec.named_parameters() if not n.startswith("g_s")}
    gradients.pop("prior.factors.3")
    assert all(g is not None and g.isfinite().all() for g in gradients.values())


def test_fixed_point_network_is_the_network_and_knows_no_order(codec):
    torch.manual_seed(0)
    hyper = torch.randint(-5, 6, (2, 12, 2, 2)).float()
    exact = fixed_point(codec.h_s, hyper)
    assert torch.allclose(exact.float(), codec.h_s(hyper), atol=1e-2)
    shuffled = torch.randperm(12)
    first = codec.h_s[0]
    first.weight.data, hyper = first.weight.data[shuffled], hyper[:, shuffled]
    assert torch.equal(fixed_point(codec.h_s, hyper), exact)


def test_a_coded_file_decodes_to_the_same_tensor_in_another_process(codec, images, tmp_path):
    codec.update()
    torch.save(codec.state_dict(), tmp_path / "weights.pt")
    for i, stream in enumerate(codec.compress(images)):
        (tmp_path / f"{i}.bin").write_bytes(stream)
    program = f"""
import torch; torch.set_num_threads({torch.get_num_threads()}); torch.manual_seed(5)
from pathlib import Path
from lightning_modules.codecs import ScaleHyperprior
codec = ScaleHyperprior(width=12, latent_channels=12).eval()
folder = Path({str(tmp_path)!r})
codec.load_state_dict(torch.load(folder / "weights.pt"))
streams = [(folder / f"{{i}}.bin").read_bytes() for i in range(3)]
torch.save(codec.decompress(streams), folder / "images.pt")
"""
    root = __file__.rsplit("/tests/", 1)[0]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)
    assert torch.equal(torch.load(tmp_path / "images.pt"), codec(images).image)


def test_rate_falls_when_it_is_trained_for(images):
    torch.manual_seed(0)
    codec = ScaleHyperprior(width=12, latent_channels=12)
    codec.g_a[-1].weight.data *= 30
    optimizer = torch.optim.Adam(codec.parameters(), lr=5e-3)
    codec.update()
    before = codec.eval()(images).bits.sum()
    codec.train()
    for _ in range(40):
        optimizer.zero_grad()
        codec(images).bits.sum().backward()
        optimizer.step()
    codec.update()
    assert codec.eval()(images).bits.sum() < 0.8 * before
