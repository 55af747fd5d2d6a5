import pytest
import timm
import torch

from lightning_modules import ModelError
from lightning_modules.networks import HybridViT, TimmNetwork


def test_it_normalises_its_own_input():
    network = TimmNetwork("test_resnet", pretrained=False).eval()
    images = torch.rand(2, 3, 32, 32)
    cfg = network.model.pretrained_cfg
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.equal(network(images), network.model((images - mean) / std))
    assert network(images).shape == (2, 7)


def test_statistics_follow_the_device_but_not_the_checkpoint():
    network = TimmNetwork("test_resnet", pretrained=False)
    assert {"mean", "std"} <= dict(network.named_buffers()).keys()
    assert not {"mean", "std"} & network.state_dict().keys()


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_of_a_local_file(tmp_path, kind):
    torch.manual_seed(0)
    published = timm.create_model("test_resnet", num_classes=1000)
    file = tmp_path / f"weights.{kind}"
    if kind == "pth":
        torch.save(published.state_dict(), file)
    else:
        from safetensors.torch import save_file

        save_file(published.state_dict(), str(file))
    network = TimmNetwork("test_resnet", weights=file).eval()
    state = network.model.state_dict()
    assert torch.equal(state["conv1.0.weight"], published.state_dict()["conv1.0.weight"])
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 7)


def test_weights_of_a_run_of_ours(tmp_path):
    trained = TimmNetwork("test_resnet", pretrained=False)
    state = {f"network.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")
    network = TimmNetwork("test_resnet", num_classes=2, weights=tmp_path / "best.ckpt").eval()
    assert torch.equal(network.model.layer1[0].conv1.weight, trained.model.layer1[0].conv1.weight)
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 2)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ModelError, match=r"does not fit test_resnet: it lacks \d+ of \d+ weights"):
        TimmNetwork("test_resnet", weights=tmp_path / "vit.pth")
    (tmp_path / "garbage.pth").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="could not be read"):
        TimmNetwork("test_resnet", weights=tmp_path / "garbage.pth")


def test_options_that_a_model_lacks_are_no_missing_weights():
    with pytest.raises(TypeError, match="drop_path_rate"):
        TimmNetwork("vgg11", pretrained=True, drop_path_rate=0.1)


def test_half_precision_network_takes_images_as_they_come():
    network = TimmNetwork("test_resnet", pretrained=False).eval().bfloat16()
    assert network(torch.rand(2, 3, 32, 32)).dtype == torch.bfloat16


def test_weights_that_cannot_be_had_name_the_two_ways_out():
    with pytest.raises(ModelError, match=r"pretrained=false.*weights=FILE"):
        TimmNetwork("test_resnet", pretrained=True)


def test_weights_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match=r"none\.pth does not exist"):
        TimmNetwork("test_resnet", weights=tmp_path / "none.pth")


def test_unknown_name_suggests_others():
    with pytest.raises(ModelError, match="no model 'resnet81': choose another .*resnet18"):
        TimmNetwork("resnet81")


SWIN = {"depths": [1, 1, 1, 1], "embed_dim": 24, "num_heads": [1, 1, 2, 2]}
FIXED = [("test_vit3", {}), ("swin_tiny_patch4_window7_224", SWIN)]


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize(("name", "options"), FIXED, ids=[name for name, _ in FIXED])
def test_a_model_of_one_size_is_built_for_the_images(name, options, size):
    network = TimmNetwork(name, pretrained=False, options=options, size=size)
    assert network.training
    assert network.model.training
    assert network(torch.rand(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_model_of_any_size_stays_as_it_is(name):
    torch.manual_seed(0)
    before = TimmNetwork(name, pretrained=False).state_dict()
    torch.manual_seed(0)
    after = TimmNetwork(name, pretrained=False, size=64).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_size_other_than_that_of_the_options_is_refused():
    with pytest.raises(ModelError, match=r"--data.size=160.*--model.network.options"):
        TimmNetwork("test_vit3", pretrained=False, options={"img_size": 64}, size=96)


DROPPING = {
    "vit": lambda **options: TimmNetwork("test_vit", pretrained=False, **options),
    "EfficientNet": lambda **options: TimmNetwork(
        "tf_efficientnet_lite0", pretrained=False, **options
    ),
    "hybrid": lambda **options: HybridViT(
        "test_vit", pretrained=False, cnn="test_resnet", cnn_stages=2, size=32, **options
    ),
}


@pytest.mark.parametrize("make", DROPPING.values(), ids=DROPPING.keys())
def test_drop_path_drops_branches_in_training_only(make):
    torch.manual_seed(0)
    network = make(drop_path_rate=0.5)
    images = torch.rand(8, 3, 32, 32)
    one, other = network.train()(images), network(images)
    assert not torch.allclose(one, other, atol=1e-3 * one.std().item())
    one, other = network.eval()(images), network(images)
    assert torch.equal(one, other)
    network = make().train()
    torch.testing.assert_close(network(images), network(images))
