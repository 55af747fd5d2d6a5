import pytest
import torch

from datamodules.classes import HAM10000_CLASSES
from lightning_modules.taxonomy import Taxonomy

TREE = HAM10000_CLASSES.taxonomy

NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
MELANOCYTIC = {"mel", "nv"}
MALIGNANT = {"mel", "bcc", "akiec"}


@pytest.mark.parametrize(("depth", "sizes"), [(1, [7]), (2, [2, 7]), (3, [2, 4, 7])])
def test_levels(depth, sizes):
    taxonomy = Taxonomy(NAMES, TREE, depth)
    assert [len(names) for names in taxonomy.levels] == sizes
    assert taxonomy.levels[-1] == list(NAMES)
    assert taxonomy.depth == depth
    assert taxonomy.num_nodes == sum(sizes)


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1], ("nv", "df", "mel", "bcc")])
def test_paths_say_what_a_diagnosis_is_in_any_order(names):
    taxonomy = Taxonomy(names, TREE, 3)
    nodes = [name for level in taxonomy.levels for name in level]
    for name, path in zip(names, taxonomy.paths.tolist(), strict=True):
        branch = "melanocytic" if name in MELANOCYTIC else "non-melanocytic"
        kind = "malignant" if name in MALIGNANT else "benign"
        assert [nodes[node] for node in path] == [branch, f"{branch} {kind}", name]
        assert [taxonomy.parents[node] for node in path] == [-1, *path[:-1]]


def test_parents_at_a_level():
    taxonomy = Taxonomy(NAMES, TREE, 3)
    assert taxonomy.parent_at_level(0).tolist() == [0, 0]
    assert taxonomy.parent_at_level(1).tolist() == [0, 0, 1, 1]
    assert taxonomy.parent_at_level(2).tolist() == [1, 0, 3, 3, 2, 2, 2]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_soft_labels_are_the_same_as_hard_ones_where_one_hot(depth):
    taxonomy, label = Taxonomy(NAMES, TREE, depth), torch.arange(7)
    soft = torch.eye(7)
    assert torch.equal(taxonomy.targets(soft).argmax(-1), taxonomy.targets(label))
    for level in range(depth):
        assert torch.equal(
            taxonomy.at_level(soft, level).argmax(1), taxonomy.at_level(label, level)
        )


def test_probabilities_add_up_at_every_level():
    taxonomy, probability = Taxonomy(NAMES, TREE, 3), torch.rand(5, 7).softmax(1)
    coarse, middle, fine = (taxonomy.at_level(probability, level) for level in range(3))
    assert torch.allclose(coarse[:, 0], probability[:, :2].sum(1))
    assert torch.allclose(middle.sum(1), torch.ones(5))
    assert torch.equal(fine, probability)


@pytest.mark.parametrize(("depth", "levels"), [(2, [2]), (3, [2, 2])])
def test_levels_that_decide_nothing_are_left_out(depth, levels):
    taxonomy = Taxonomy(("nv", "mel"), TREE, depth)
    assert [len(names) for names in taxonomy.levels] == levels


def test_members():
    taxonomy = Taxonomy(NAMES, TREE, 2)
    assert taxonomy.members().tolist() == [[True] * 2 + [False] * 7, [False] * 2 + [True] * 7]


def test_state_dict_is_empty():
    assert not Taxonomy(NAMES, TREE, 3).state_dict()


def test_unknown_diagnoses_and_depths_are_named():
    with pytest.raises(ValueError, match="no class 'scc'"):
        Taxonomy(("nv", "scc"), TREE)
    with pytest.raises(ValueError, match="depth of the taxonomy is 4"):
        Taxonomy(NAMES, TREE, 4)
