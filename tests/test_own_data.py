"""Every method trains on data sets of other classes than HAM10000's."""

import pytest

from experiments.command_line.cli import run_command
from experiments.recipes import read, recipes
from tests.own_data import DISEASES, describe, draw
from tests.test_experiments import arguments, small_networks

__all__ = ["small_networks"]
TREE = {"inflammatory": {"dry": ["psoriasis", "eczema"]}, "other": {"oily": ["acne"]}}
SHOTS = {"many": ["psoriasis"], "medium": ["eczema"], "few": ["acne"]}


def methods() -> list[str]:
    """A recipe of each combination of module and network."""
    chosen: dict[tuple[str, str], str] = {}
    for name, path in recipes().items():
        model = read(str(path))["model"]
        network = model.get("init_args", {}).get("network") or {}
        kind = network if isinstance(network, str) else network.get("class_path", "")
        chosen.setdefault((model["class_path"], kind), name)
    return sorted(chosen.values())


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    root = draw(tmp_path_factory.mktemp("own") / "three")
    describe(root, classes=DISEASES, taxonomy=TREE, shots=SHOTS, tasks={"melanoma": DISEASES[1:]})
    return root


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    classes = DISEASES[:2]
    tree = {"inflammatory": {"dry": classes[:1]}, "other": {"wet": classes[1:]}}
    shots = {"many": classes[:1], "medium": [], "few": classes[1:]}
    root = draw(tmp_path_factory.mktemp("own") / "two", classes)
    describe(root, classes=classes, taxonomy=tree, shots=shots, tasks={"melanoma": classes})
    return root


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("classes", ["three", "two"])
@pytest.mark.parametrize("recipe", methods())
def test_a_method_trains_on_other_classes(recipe, classes, request):
    root = request.getfixturevalue(classes)
    cli = run_command(["fit", *arguments(recipes()[recipe], root)])
    assert cli.trainer.global_step == 1
    assert set(cli.datamodule.class_names) <= set(DISEASES)
