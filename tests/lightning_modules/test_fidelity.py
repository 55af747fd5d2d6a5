import kornia
import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from lightning_modules.codecs import Reconstruction
from lightning_modules.fidelity import (
    COLUMNS,
    CompressedMetrics,
    Fidelity,
    contrast,
    fidelity,
    measure,
    structural_similarity,
)
from tests.processes import in_two

NAMES = ("mel", "nv")


@pytest.fixture
def pair():
    torch.manual_seed(0)
    coarse = torch.rand(3, 3, 12, 12)
    images = torch.nn.functional.interpolate(coarse, size=96, mode="bicubic").clamp(0, 1)
    return images, (images + 0.05 * torch.randn_like(images)).clamp(0, 1)


def everywhere(images):
    return torch.ones_like(images[:, :1])


def measured(images, seen: Reconstruction, mask=None) -> dict[str, torch.Tensor]:
    return dict(zip(COLUMNS, measure(images, seen, mask).T, strict=True))


def disc(size: int, radius: float) -> torch.Tensor:
    axis = torch.arange(size) - (size - 1) / 2
    return (axis.square() + axis.square()[:, None] < radius**2).float()[None, None]


def test_psnr_and_mae_by_definition(pair):
    a, b = (images.double() for images in pair)
    psnr, _, _, mae = fidelity(a, b, everywhere(a))[:, 0].T
    for i in range(3):
        difference = (a[i] - b[i]).numpy()
        assert psnr[i].item() == pytest.approx(10 * np.log10(1 / np.mean(difference**2)), rel=1e-9)
        assert mae[i].item() == pytest.approx(np.abs(difference).mean(), rel=1e-9)


def test_ssim_is_kornias_where_windows_are_whole(pair):
    a, b = (images.double() for images in pair)
    ours = structural_similarity(a, b, everywhere(a))[0][:, 0]
    theirs = kornia.metrics.ssim(a, b, 11, eps=0, padding="valid").mean((1, 2, 3))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    # torchmetrics pads, and averages over what it has padded.
    assert torch.allclose(ours, ssim(a, b, data_range=1.0, reduction="none"), atol=2e-2)


def test_ms_ssim_is_the_product_over_scales(pair):
    """Compare with a naive loop from the paper, with the same windows at every scale."""
    a, b = (images.double() for images in pair)
    ours = structural_similarity(a, b, everywhere(a))[1][:, 0]
    exponents = np.array([0.0448, 0.2856, 0.3001, 0.2363])  # 96, 48, 24, 12: not 6, below 11
    value = np.ones(3)
    for scale, exponent in enumerate(exponents / exponents.sum()):
        if scale < 3:
            value *= np.stack([structure(x, y) for x, y in zip(a, b, strict=True)]) ** exponent
        else:
            theirs = kornia.metrics.ssim(a, b, 11, eps=0, padding="valid").mean((1, 2, 3))
            value *= theirs.numpy() ** exponent
        a, b = (torch.nn.functional.avg_pool2d(x, 2) for x in (a, b))
    assert ours.tolist() == pytest.approx(value.tolist(), rel=1e-9)


def structure(a, b):
    """Mean of (2 s_ab + c) / (s_aa + s_bb + c) over all windows, in a loop."""
    axis = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weight = np.outer(axis, axis) / axis.sum() ** 2
    x, y = (np.lib.stride_tricks.sliding_window_view(i.numpy(), (11, 11), (1, 2)) for i in (a, b))
    mean = lambda z: (z * weight).sum((-2, -1))  # noqa: E731
    cross = mean(x * y) - mean(x) * mean(y)
    spread = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    return ((2 * cross + 0.03**2) / (spread + 0.03**2)).mean()


def test_nothing_lost_is_the_end_of_every_scale(pair):
    images, _ = pair
    seen = Reconstruction(images, torch.full((3,), 96 * 96 * 2.0), torch.zeros(3, 2, 24, 24))
    values = measured(images, seen, disc(96, 20).expand(3, -1, -1, -1))
    for name in ("psnr", "lesion_psnr"):
        assert values[name].tolist() == pytest.approx([100] * 3)
    for name in ("ssim", "ms_ssim", "lesion_ssim", "lesion_ms_ssim", "explained"):
        assert values[name].tolist() == pytest.approx([1] * 3, abs=1e-5)
    assert values["mae"].tolist() == values["lesion_mae"].tolist() == [0] * 3
    assert torch.equal(values["contrast_before"], values["contrast_after"])
    assert values["bits_per_pixel"].tolist() == [2] * 3
    assert values["values_ratio"].tolist() == [24] * 3


def test_half_precision_around_it_changes_nothing(pair):
    a, b = pair
    expected = measure(a, Reconstruction(b), disc(96, 20).expand(3, -1, -1, -1))
    with torch.autocast("cpu", torch.bfloat16):
        found = measure(a, Reconstruction(b), disc(96, 20).expand(3, -1, -1, -1))
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())


def test_inside_the_lesion_what_is_outside_does_not_count(pair):
    images, _ = pair
    mask = disc(96, 20).expand(3, -1, -1, -1)
    far = disc(96, 44) == 0
    spoilt = torch.where(far, 1 - images, images)
    values = measured(images, Reconstruction(spoilt), mask)
    assert values["lesion_psnr"].tolist() == pytest.approx([100] * 3)
    assert values["lesion_ssim"].tolist() == pytest.approx([1] * 3, abs=1e-5)
    assert (values["psnr"] < 25).all()
    spoilt = torch.where(mask > 0, 1 - images, images)
    values = measured(images, Reconstruction(spoilt), mask)
    assert (values["lesion_psnr"] < values["psnr"]).all()
    assert (values["lesion_mae"] > 5 * values["mae"]).all()


def test_what_is_no_number_is_no_image(pair):
    images, _ = pair
    values = measured(images, Reconstruction(torch.full_like(images, torch.nan)))
    black = measured(images, Reconstruction(torch.zeros_like(images)))
    assert values["psnr"].tolist() == black["psnr"].tolist()
    assert (values["explained"] < 0).all()


def test_mean_colours_explain_nothing(pair):
    images, _ = pair
    flat = images.mean((2, 3), keepdim=True).expand_as(images)
    explained = measured(images, Reconstruction(flat))["explained"]
    assert explained.tolist() == pytest.approx([0] * 3, abs=1e-5)


def test_contrast_is_of_the_lesion_and_the_skin_around_it():
    mask = disc(64, 12).double()
    images = (0.6 - 0.4 * mask).repeat(1, 3, 1, 1)
    images[..., :2, :] = 0.0  # the dark margin of the image is not skin
    assert contrast(images, mask).item() == pytest.approx(0.5)
    assert contrast(1 - images, mask).item() == pytest.approx((0.4 - 0.8) / 1.2)
    assert contrast(images, torch.ones_like(mask)).isnan().all()
    assert contrast(images, torch.zeros_like(mask)).isnan().all()


def batch(images, index=(2, 0, 1), **more):
    label = torch.tensor([1, 0, 1])
    return {"image": images, "label": label, "index": torch.tensor(index), **more}


def test_metric_orders_images_and_leaves_out_what_nobody_has(pair):
    images, seen = pair
    metric = Fidelity(NAMES)
    metric.update(batch(images), Reconstruction(seen))
    computed = metric.compute()
    assert computed["index"].tolist() == [0, 1, 2]
    assert computed["label"].tolist() == [0, 1, 1]
    expected = measure(images, Reconstruction(seen), None)[[1, 2, 0]]
    assert torch.equal(computed["measured"].nan_to_num(), expected.nan_to_num())
    assert {n for n, v in computed.items() if v.ndim == 0} == {
        "psnr", "ssim", "ms_ssim", "mae", "explained"
    }  # fmt: skip
    torch.testing.assert_close(computed["psnr"], expected[:, 0].mean(), rtol=1e-6, atol=0)


def test_lesions_that_fill_an_image_are_left_out_of_the_mean(pair):
    images, seen = pair
    mask = torch.cat([disc(96, 20), torch.ones(1, 1, 96, 96), disc(96, 20)])
    metric = Fidelity(NAMES)
    metric.update(batch(images, mask=mask), Reconstruction(seen))
    before = contrast(images, mask)
    assert metric.compute()["contrast_before"] == pytest.approx(before[[0, 2]].mean().item())


def test_diagnosis_and_fidelity_start_afresh_together(pair):
    images, seen = pair
    metric = CompressedMetrics(NAMES)
    for _ in range(2):
        metric.reset()
        metric.update(torch.eye(2)[[1, 0, 0]], batch(images), Reconstruction(seen))
        computed = metric.compute()
        assert computed["accuracy"] == pytest.approx(2 / 3)
        assert len(computed["measured"]) == len(computed["probability"]) == 3
        assert computed["psnr"] > 20


def test_what_is_black_has_no_contrast_and_all_lesion_has_none_to_skin():
    images, mask = torch.rand(2, 3, 24, 24), disc(24, 8).repeat(2, 1, 1, 1)
    mask[1] = 1
    seen = measured(images, Reconstruction(torch.zeros_like(images)), mask)
    assert seen["contrast_after"][0] == 0
    assert seen["contrast_before"].isnan().tolist() == [False, True]
    assert seen["contrast_after"].isnan().tolist() == [False, True]
    assert not seen["lesion_psnr"].isnan().any()


def counted(rows):
    """Fidelity of the given rows of five images, at half brightness, with mask and counted bits."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 24, 24, generator=generator)
    batch = {
        "image": images,
        "label": torch.tensor([0, 1, 1, 0, 1]),
        "index": torch.tensor([9, 2, 5, 4, 7]),
        "mask": disc(24, 8).expand(5, -1, -1, -1),
    }
    seen = Reconstruction(images / 2, bits=torch.arange(5.0))
    found = Fidelity(NAMES)
    for row in rows:  # one at a time
        found.update(
            {name: value[row : row + 1] for name, value in batch.items()},
            Reconstruction(seen.image[row : row + 1], seen.bits[row : row + 1]),
        )
    return found.compute()


def share(rank):
    return counted([[0, 2, 4], [1, 3]][rank])


def test_two_processes_measure_as_one():
    alone = counted(range(5))
    assert alone["index"].tolist() == [2, 4, 5, 7, 9]
    assert alone["label"].tolist() == [1, 0, 1, 1, 0]
    for found in in_two(share):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0, equal_nan=True)
