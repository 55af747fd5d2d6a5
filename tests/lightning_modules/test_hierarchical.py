import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torch import nn

from datamodules.classes import HAM10000_CLASSES
from lightning_modules.hierarchical import HierarchicalClassifier, PathClassifier, path_loss
from lightning_modules.networks.attention_decoder import AttentionDecoder
from lightning_modules.networks.cbam import MultiHeadNetwork
from lightning_modules.taxonomy import Taxonomy

TREE = HAM10000_CLASSES.taxonomy

NAMES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")


class Recorded(nn.Module):
    """A network that returns the ``logits`` it is given."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.taxonomy, self.logits = Taxonomy(NAMES, TREE, depth), []

    def levels(self, images):
        return self.logits


def module(network, cls=HierarchicalClassifier, **options):
    """A module that stores what it logs in ``logged``."""
    options = {"criterion": nn.CrossEntropyLoss(), "optimizer": adam} | options
    made = cls(network, class_names=NAMES, **options)
    made.logged = {}
    made.log = lambda name, value: made.logged.update({name: value.item()})
    made.log_dict = lambda values: made.logged.update({k: v.item() for k, v in values.items()})
    return made


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-2)


def random_levels(network, n: int, seed: int = 0):
    torch.manual_seed(seed)
    return [torch.randn(n, len(names)) for names in network.taxonomy.levels]


@pytest.mark.parametrize("weights", [None, [0.5, 0.0, 2.0]])
def test_loss_is_the_weighted_sum_over_levels(weights):
    made, label = module(Recorded(), level_weights=weights), torch.tensor([0, 1, 4, 2])
    logits = random_levels(made.network, 4)
    labels = (torch.tensor(x) for x in ([0, 0, 1, 1], [1, 0, 2, 3], [0, 1, 4, 2]))
    each = [F.cross_entropy(x, y) for x, y in zip(logits, labels, strict=True)]
    w = weights or [1 / 3] * 3
    expected = sum(a * b for a, b in zip(w, each, strict=True))
    assert torch.allclose(made.level_loss(logits, label), expected)


def test_every_level_has_its_criterion():
    inner = [nn.CrossEntropyLoss(label_smoothing=0.3), nn.CrossEntropyLoss(weight=torch.rand(4))]
    made, label = module(Recorded(), inner_criteria=inner), torch.tensor([0, 1, 4, 2])
    logits = random_levels(made.network, 4)
    taxonomy = made.network.taxonomy
    expected = sum(
        criterion(logits[level], taxonomy.at_level(label, level)) / 3
        for level, criterion in enumerate([*inner, nn.CrossEntropyLoss()])
    )
    assert torch.allclose(made.level_loss(logits, label), expected)
    for wrong in ({"inner_criteria": inner[:1]}, {"level_weights": [1.0]}):
        with pytest.raises(ValueError, match="3 levels"):
            module(Recorded(), **wrong)


def test_soft_labels():
    made, label = module(Recorded()), torch.tensor([0, 1, 4, 2])
    logits, soft = random_levels(made.network, 4), F.one_hot(label, 7).float()
    assert torch.allclose(made.level_loss(logits, soft), made.level_loss(logits, label))
    mixed = 0.3 * soft + 0.7 * soft.flip(0)
    expected = 0.3 * made.level_loss(logits, label) + 0.7 * made.level_loss(logits, label.flip(0))
    assert torch.allclose(made.level_loss(logits, mixed), expected)


@pytest.mark.parametrize("absent", [(), (0, 1)], ids=["all classes", "nothing melanocytic"])
def test_scores_of_every_level_are_scikit_learns(absent):
    made, label = module(Recorded()), torch.arange(60) % 7
    for c in absent:
        label[label == c] = c + 2
    network, logits = made.network, random_levels(made.network, 60)
    for rows in torch.arange(60).split(16):
        network.logits = [x[rows] for x in logits]
        made.evaluate({"image": rows, "label": label[rows], "index": rows}, "val")
    made.report("val")
    for level, scored in enumerate(logits):
        true, predicted = network.taxonomy.at_level(label, level), scored.argmax(1)
        name, occurs = f"val/level{level + 1}", sorted(set(true.tolist()))
        recalls = [(predicted[true == c] == c).float().mean().item() for c in occurs]
        accuracy = pytest.approx(accuracy_score(true, predicted))
        assert made.logged[f"{name}_accuracy"] == accuracy
        balanced = made.logged[f"{name}_balanced_accuracy"]
        assert balanced == pytest.approx(sum(recalls) / len(recalls))
        if not absent:
            assert balanced == pytest.approx(balanced_accuracy_score(true, predicted))
    assert made.logged["val/accuracy"] == made.logged["val/level3_accuracy"]
    # The running mean of 60 losses is computed in float32.
    rounding, expected = 60 * torch.finfo(torch.float32).eps, F.cross_entropy(logits[-1], label)
    assert made.logged["val/loss"] == pytest.approx(expected.item(), rel=rounding)
    assert not any(confusion.update_called for confusion in made.confusion["val"])


def test_criteria_of_the_classes_are_stored_once():
    made = module(Recorded(), criterion=nn.CrossEntropyLoss(weight=torch.rand(7)))
    assert [name for name in made.state_dict() if "weight" in name] == ["criterion.weight"]


def test_path_loss_of_correct_predictions_is_0():
    target = Taxonomy(NAMES, TREE, 3).paths
    certain = F.one_hot(target, 13) * 200.0
    assert path_loss(certain, target).item() == pytest.approx(0, abs=1e-6)


def test_path_loss_by_its_definition():
    torch.manual_seed(0)
    taxonomy, logits = Taxonomy(NAMES, TREE, 3), torch.randn(7, 3, 13)
    each = []
    for sample, path in zip(logits, taxonomy.paths, strict=True):
        a, b = torch.zeros(13), torch.zeros(13)
        for scores, node in zip(sample, path, strict=True):
            a[node] += 1
            b += scores.exp() / scores.exp().sum()
        each.append(1 - (a @ b) / (a.norm() * b.norm()))
    loss = path_loss(logits, taxonomy.paths)
    assert torch.allclose(loss, torch.stack(each).mean())
    assert torch.allclose(path_loss(logits, taxonomy.targets(torch.eye(7))), loss)
    assert torch.allclose(
        path_loss(logits.flip(1), taxonomy.paths), loss
    )  # the order of levels does not matter
    assert path_loss(logits * 1e4, taxonomy.paths).isfinite()


def batch(n: int = 14, size: int = 32):
    torch.manual_seed(0)
    label = torch.arange(n) % 7
    colour = torch.rand(7, 3, 1, 1)
    images = (colour[label] + 0.1 * torch.rand(n, 3, size, size)).clamp(0, 1)
    return {"image": images, "label": label, "index": torch.arange(n)}


def decoder(**options):
    torch.manual_seed(0)
    small = {"hidden": 32, "embed_dim": 6, "pretrained": False}
    return AttentionDecoder("test_resnet", NAMES, TREE, **(small | options))


@pytest.mark.parametrize("level_masked", [False, True])
def test_training_of_paths_is_cross_entropy_of_steps_plus_path_loss(level_masked):
    network = decoder(depth=3, level_masked=level_masked).eval()
    made, given = module(network, PathClassifier, path_weight=0.5), batch()
    loss = made.training_step(given, 0)
    path = network.taxonomy.paths[given["label"]]
    logits = network.decode(network.features(given["image"]), path)
    steps = [F.cross_entropy(logits[:, t], path[:, t]) for t in range(3)]
    assert torch.allclose(loss, sum(steps) / 3 + 0.5 * path_loss(logits, path))
    soft = given | {"label": F.one_hot(given["label"], 7).float()}
    assert torch.allclose(made.training_step(soft, 0), loss)
    assert made.logged.keys() == {"train/loss", "train/path_loss"}


@pytest.mark.parametrize("present", [[1], [2, 4]], ids=["one class", "one branch"])
def test_a_class_or_level_that_a_batch_lacks(present):
    given = batch(8)
    given["label"] = torch.tensor(present).repeat(8 // len(present))
    for made in (module(decoder(depth=3), PathClassifier), module(multi_head())):
        loss = made.training_step(given, 0)
        loss.backward()
        assert loss.isfinite()


def multi_head():
    torch.manual_seed(0)
    return MultiHeadNetwork("test_resnet", NAMES, TREE, depth=3, pretrained=False)


@pytest.mark.parametrize(
    ("make", "cls"),
    [
        (multi_head, HierarchicalClassifier),
        (lambda: decoder(decision="paths", drop_rate=0.0), HierarchicalClassifier),
        (lambda: decoder(drop_rate=0.0), PathClassifier),
        (lambda: decoder(level_masked=True, decision="paths", drop_rate=0.0), PathClassifier),
    ],
    ids=["heads", "paths", "teacher forcing", "masked"],
)
def test_every_way_learns_a_batch_by_heart(make, cls):
    made, given = module(make(), cls), batch()
    features = torch.randn(7, 96, 2, 2)[given["label"]] + 0.1 * torch.randn(14, 96, 2, 2)
    made.network.features = lambda images: features  # without the encoder, learning is fast
    optimizer = made.configure_optimizers()
    for _ in range(40):
        optimizer.zero_grad()
        made.training_step(given, 0).backward()
        optimizer.step()
    levels = made.network.levels(given["image"])
    for level, logits in enumerate(levels):
        true = made.network.taxonomy.at_level(given["label"], level)
        assert (logits.argmax(1) == true).float().all()
