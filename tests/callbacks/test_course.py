"""Remarks on the course of training, from metrics of invented runs."""

import json

import pytest

from callbacks.recording.course import course, standard_error

IMAGES = {"mel": 20, "nv": 20}


def record(path, values):
    """Metrics of a run: a validation after each epoch, with equal recalls of both classes."""
    lines = []
    for epoch, value in enumerate(values):
        recalls = {f"val/recall_{name}": value for name in IMAGES}
        head = {"attempt": 1, "step": 10 * epoch + 9, "epoch": epoch}
        lines += [head | {"train/loss": 1.0}, head | {"val/balanced_accuracy": value} | recalls]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_good_training_has_no_remarks(tmp_path):
    found = course(record(tmp_path / "metrics.jsonl", [0.3, 0.5, 0.62, 0.6]), IMAGES)
    assert found == {
        "epochs": 4,
        "best_epoch": 2,
        "last_epoch": 3,
        "best": 0.62,
        "last": 0.6,
        "remarks": [],
    }


def test_a_collapse_is_remarked(tmp_path):
    found = course(record(tmp_path / "metrics.jsonl", [0.5, 0.3] + 8 * [0.2]), IMAGES)
    early, late = found["remarks"]
    assert early == "the best epoch is 1 of 10, in the first tenth"
    assert late == (
        "the last epoch (10) has a validation balanced accuracy of 0.200, the best (1) 0.500"
    )


@pytest.mark.parametrize(
    ("best_epoch", "epochs", "early"),
    [(0, 1, False), (0, 9, False), (0, 10, True), (1, 10, False), (1, 20, True), (2, 20, False)],
)
def test_only_runs_of_ten_epochs_have_a_first_tenth(tmp_path, best_epoch, epochs, early):
    values = [0.5] * epochs
    values[best_epoch] = 0.51
    found = course(record(tmp_path / "metrics.jsonl", values), IMAGES)
    assert bool(found["remarks"]) == early


@pytest.mark.parametrize(("drop", "far"), [(1.9, False), (2.1, True)])
def test_far_below_is_more_than_two_standard_errors(tmp_path, drop, far):
    error = (0.5 * 0.5 / 40) ** 0.5  # both recalls are 0.5, of 20 images each
    assert standard_error(dict.fromkeys(IMAGES, 0.5), IMAGES) == pytest.approx(error)
    values = [0.3, 0.5, 0.5 - drop * error]
    found = course(record(tmp_path / "metrics.jsonl", values), IMAGES)
    assert bool(found["remarks"]) == far


def test_the_validation_of_a_decision_is_no_epoch(tmp_path):
    path = record(tmp_path / "metrics.jsonl", [0.3, 0.5])
    before = course(path, IMAGES)
    decision = {"attempt": 2, "step": 0, "epoch": 0, "val/balanced_accuracy": 0.5}
    with path.open("a") as file:
        file.write(json.dumps(decision) + "\n")
    assert course(path, IMAGES) == before


def test_a_class_without_validation_images_is_left_out():
    assert standard_error({"mel": 0.5, "nv": 0.0}, {"mel": 20, "nv": 0}) == (0.25 / 20) ** 0.5


def test_nothing_validated_is_nothing(tmp_path):
    assert course(tmp_path / "metrics.jsonl", IMAGES) is None
    path = tmp_path / "other.jsonl"
    path.write_text('{"attempt": 1, "step": 1, "epoch": 0, "val/mae": 0.1}\n')
    assert course(path, IMAGES) is None
