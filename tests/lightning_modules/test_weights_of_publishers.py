"""Files with the names of their publishers, made from a small transformer of timm."""

import pytest
import timm
import torch

from lightning_modules import ModelError
from lightning_modules.networks import TimmNetwork

SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 2}
SCALED = SMALL | {"init_values": 0.1}
PANDERM = "vit_base_patch16_224.mae"  # ImageNet's mean and standard deviation, as PanDerm
CLIP = "vit_base_patch16_clip_224.openai"


def published(name, options):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for key, parameter in model.named_parameters():
        if key.endswith("qkv.bias"):
            parameter.data[32:64] = 0  # keys have no bias in BEiT
    return model.eval()


def as_panderm(model, prefix=""):
    """Names of https://github.com/SiyuanYan1/PanDerm, classification/models."""
    state = {}
    for key, value in model.state_dict().items():
        if key.endswith("attn.qkv.bias"):
            query, _, value_bias = value.chunk(3)
            state[key.replace("qkv.bias", "q_bias")] = query
            state[key.replace("qkv.bias", "v_bias")] = value_bias
        else:
            state[key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")] = value
    return {f"{prefix}{key}": value for key, value in state.items()}


def as_open_clip(model):
    """Names of open_clip's CLIP with a vision transformer, with a part of the text encoder."""
    renamed = [
        ("patch_embed.proj", "conv1"), ("pos_embed", "positional_embedding"),
        ("cls_token", "class_embedding"), ("norm_pre", "ln_pre"), ("norm1", "ln_1"),
        ("norm2", "ln_2"), ("attn.qkv.", "attn.in_proj_"), ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("blocks", "transformer.resblocks"),
    ]  # fmt: skip
    state = {"logit_scale": torch.ones(()), "positional_embedding": torch.zeros(77, 8)}
    for key, value in model.state_dict().items():
        if key in ("cls_token", "pos_embed"):
            value = value.flatten(0, -2).squeeze(0)
        if key.startswith("head."):
            continue
        for old, new in renamed:
            key = key.replace(old, new)
        state["visual." + key.replace("norm.", "ln_post.")] = value
    return state | {"visual.proj": torch.zeros(32, 8)}


def decoder_and_teacher(model):
    """A checkpoint of PanDerm's training, whose encoder is one of three networks."""
    others = {"decoder.blocks.0.norm1.weight": torch.ones(3)}
    others["teacher.patch_embed.proj.weight"] = torch.zeros(32, 3, 16, 16)
    return {"model": as_panderm(model, "encoder.") | others}


LAYOUTS = {
    "PanDerm base": (PANDERM, SCALED, as_panderm),
    "PanDerm large": (PANDERM, SCALED, decoder_and_teacher),
    "DermLIP, PanDerm": (PANDERM, SCALED, lambda model: as_panderm(model, "visual.")),
    "DermLIP, ViT": (CLIP, SMALL, as_open_clip),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_a_published_file_gives_the_published_features(layout, tmp_path):
    name, options, rename = LAYOUTS[layout]
    model = published(name, options)
    torch.save(rename(model), tmp_path / "published.pth")
    network = TimmNetwork(name, weights=tmp_path / "published.pth", options=options, size=224)
    images = torch.rand(2, 3, 224, 224)
    expected = model.forward_head(
        model.forward_features(network.normalize(images)), pre_logits=True
    )
    torch.testing.assert_close(network.eval().encode(images), expected)
    smaller = TimmNetwork(name, weights=tmp_path / "published.pth", options=options, size=96)
    assert smaller(images[..., :96, :96]).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "options", "change", "message"),
    [
        (PANDERM, SMALL, {}, r"no blocks.0.ls1.gamma: set --model.network.options.init_values=0.1"),
        (
            PANDERM,
            SCALED,
            {"rel_pos_bias.relative_position_bias_table": torch.zeros(9, 2)},
            "has no rel_pos_bias.relative_position_bias_table: choose a network that has it",
        ),
        (PANDERM, SCALED, {"reg_token": torch.zeros(1, 4, 32)}, "has no reg_token: choose"),
        (PANDERM, SCALED, {"norm_pre.weight": torch.ones(32)}, "has no norm_pre.weight: choose"),
        (CLIP, SCALED, {}, "lacks 2 of 35 weights, such as norm_pre.bias"),
    ],
)
def test_what_would_compute_something_else_is_refused(name, options, change, message, tmp_path):
    state = as_panderm(published(PANDERM, SCALED)) | change
    torch.save(state, tmp_path / "published.pth")
    with pytest.raises(ModelError, match=message):
        TimmNetwork(name, weights=tmp_path / "published.pth", options=options)


def test_names_that_cannot_be_converted(tmp_path):
    state = as_panderm(published(PANDERM, SCALED))
    del state["blocks.1.attn.v_bias"]
    torch.save(state, tmp_path / "published.pth")
    with pytest.raises(ModelError, match="does not fit .* could not be converted .*KeyError"):
        TimmNetwork(PANDERM, weights=tmp_path / "published.pth", options=SCALED)


def test_the_first_blocks_of_a_deeper_network(tmp_path):
    torch.save(as_panderm(published(PANDERM, SCALED)), tmp_path / "published.pth")
    options = SCALED | {"depth": 1}
    network = TimmNetwork(PANDERM, weights=tmp_path / "published.pth", options=options)
    assert len(network.model.blocks) == 1
