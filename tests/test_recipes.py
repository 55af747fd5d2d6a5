"""Recipes: found by name, layered on their family, and stating only differences from it."""

from pathlib import Path

import pytest
import yaml

from callbacks.errors import RunError
from experiments.recipes import FAMILY, FOLDER, find, layered, layers, read, recipes
from experiments.recipes.index import README, index, needs

FAMILIES = sorted(FOLDER.glob(f"*/{FAMILY}"))
MEMBERS = [path for path in recipes().values() if path.with_name(FAMILY).exists()]


def classes(settings, at=""):
    """The classes that settings choose, by key, with the arguments stated."""
    for key, value in settings.items():
        if isinstance(value, dict):
            if "class_path" in value:
                yield f"{at}{key}", (value["class_path"], set(value.get("init_args", {})))
            yield from classes(value, f"{at}{key}.")
        elif isinstance(value, str) and value.startswith(("lightning_modules.", "datamodules.")):
            yield f"{at}{key}", (value, set())


def leftovers(family, member):
    """Classes that a member replaces although arguments of the family's class would remain.

    The module itself may change: what modules share are roles (network, optimizer, ...).
    """
    chosen = dict(classes(family))
    for key, (name, arguments) in classes(member):
        before, stated = chosen.get(key, (name, set()))
        if key != "model" and name != before and not stated <= arguments:
            yield key


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.stem)
def test_no_argument_of_an_exchanged_class_stays_behind(member):
    family, own = (yaml.safe_load(layer.read_text()) for layer in layers(str(member)))
    assert list(leftovers(family, own)) == []


def test_an_exchanged_optimizer_must_state_the_arguments_of_the_former():
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "weight_decay": 5e-4}}
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}}
    family, member = ({"model": {"init_args": {"optimizer": each}}} for each in (sgd, adam))
    assert list(leftovers(family, member)) == ["model.init_args.optimizer"]
    adam["init_args"]["weight_decay"] = 0.01
    assert list(leftovers(family, member)) == []


@pytest.mark.parametrize("member", MEMBERS, ids=lambda path: path.stem)
def test_members_state_only_their_difference(member):
    def repeated(family, own, at=""):
        for key in family.keys() & own.keys():
            if isinstance(own[key], dict) and isinstance(family[key], dict):
                yield from repeated(family[key], own[key], f"{at}{key}.")
            elif own[key] == family[key] and key != "class_path":
                yield f"{at}{key}"

    assert list(repeated(*(yaml.safe_load(p.read_text()) for p in layers(str(member))))) == []


@pytest.mark.parametrize("family", FAMILIES, ids=lambda path: path.parent.name)
def test_families_name_no_method(family):
    settings = yaml.safe_load(family.read_text())
    assert family.read_text().startswith("# ")
    assert "name" not in settings
    assert "mix" not in settings["model"].get("init_args", {})


def test_names_are_those_of_the_files():
    assert {name: read(name)["name"] for name in recipes()} == {name: name for name in recipes()}


@pytest.mark.parametrize("given", ["vgg_ohem", "experiments/vgg_ohem.yaml"])
def test_a_recipe_is_found_by_its_name_and_where_it_was(given):
    family, member = layers(given)
    assert (family.name, member) == (FAMILY, find("vgg_ohem"))
    assert member.parent == family.parent


def test_other_files_stand_for_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vgg_ce").mkdir()
    (tmp_path / "own.yaml").write_text("name: own\n")
    (tmp_path / FAMILY).write_text("name: not one of ours\n")
    command = ["fit", "--config", "own.yaml", "--config=runs/x/config.yaml", "--name", "x"]
    asked = ["fit", "--config=own.yaml", "--config=runs/x/config.yaml", "--name", "x"]
    assert list(layered(command)) == asked


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(RunError, match="no recipe 'vgg_ohme'.*vgg_ohem"):
        find("vgg_ohme")


@pytest.mark.parametrize("command", [read, lambda name: list(layered(["fit", "--config", name]))])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"model: [\n", "mine.yaml, line 2 cannot be read as YAML: "),
        (b"name: \xff\n", "mine.yaml cannot be read as YAML: "),
        (b"", "mine.yaml holds no settings"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(command, text, message):
    Path("mine.yaml").write_bytes(text)
    with pytest.raises(RunError, match=message):
        command("mine.yaml")


def test_the_index_is_up_to_date():
    assert README.read_text() == index(), "Run: make recipes ARGS=--write"


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("small_ce", []),
        ("vgg_care_stage2", ["run vgg_ce", "masks"]),
        ("compressed_frozen", ["run codec_6x", "run compressed_original", "masks"]),
        ("bcl", ["weights resnet50d.ra2_in1k"]),
    ],
)
def test_needs_follow_from_the_settings(recipe, expected):
    assert needs(recipe) == expected


@pytest.mark.parametrize("path", recipes().values(), ids=lambda path: path.stem)
def test_headers_end_with_their_command(path):
    lines = path.read_text().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert header[-1].startswith("#   make ")
    assert max(map(len, header)) <= 100
