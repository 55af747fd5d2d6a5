import json
import math

import pytest
from pytorch_lightning.utilities import rank_zero_only

from callbacks.recording.history import History
from callbacks.recording.metrics_file import best_values, read_history

LESS_IS_BETTER = ["val/loss", "val/ece", "val/classwise_ece", "val/brier", "val/nll", "val/aurc"]


def lines(history: History) -> list[dict]:
    return [json.loads(line) for line in history.path.read_text().splitlines()]


def test_writes_a_line_per_call(tmp_path):
    history = History(tmp_path / "run")
    history.log_metrics({"train/loss": 0.5, "epoch": 0}, step=9)
    history.log_metrics({"lr-AdamW": 1e-3}, step=9)

    assert lines(history) == [
        {"attempt": 1, "step": 9, "epoch": 0, "train/loss": 0.5},
        {"attempt": 1, "step": 9, "epoch": None, "lr-AdamW": 1e-3},
    ]
    assert history.save_dir == str(tmp_path / "run")


def test_writes_nothing_before_the_first_call_nor_on_other_ranks(tmp_path, monkeypatch):
    history = History(tmp_path)
    history.log_hyperparams({"lr": 1})
    history.finalize("success")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    history.log_metrics({"train/loss": 0.5}, step=0)

    assert not history.path.exists()


def test_numbers_that_are_none_survive_as_valid_json(tmp_path):
    history = History(tmp_path)
    values = {"train/a": math.nan, "train/b": math.inf, "train/c": -math.inf, "train/d": 1}
    history.log_metrics(values, step=0)

    json.loads(history.path.read_text(), parse_constant=pytest.fail)
    (row,) = read_history(history.path).to_dict("records")
    assert math.isnan(row["train/a"])
    assert (row["train/b"], row["train/c"], row["train/d"]) == (math.inf, -math.inf, 1)


def test_goes_on_after_a_torn_line(tmp_path):
    history = History(tmp_path)
    history.log_metrics({"train/loss": 3.0}, step=0)
    with history.path.open("ab") as file:
        file.write(b'{"attempt": 1, "step": 1, "train/lo\xff')

    resumed = History(tmp_path)
    resumed.log_metrics({"train/loss": 2.0}, step=1)
    resumed.log_metrics({"train/loss": 1.0}, step=2)

    table = read_history(history.path)
    assert table["train/loss"].tolist() == [3.0, 2.0, 1.0]
    assert table["attempt"].tolist() == [1, 2, 2]


def test_one_row_per_step_and_kind(tmp_path):
    history = History(tmp_path)
    history.log_metrics({"lr-AdamW": 0.1}, step=3)
    history.log_metrics({"train/loss_step": 1.0, "epoch": 0}, step=3)
    history.log_metrics({"val/f1": 0.5, "epoch": 0}, step=3)
    history.log_metrics({"train/loss_epoch": 2.0, "epoch": 0}, step=3)

    table = read_history(history.path).set_index("kind")
    assert list(table.index) == ["train", "val"]
    assert table.loc["train", ["lr-AdamW", "train/loss_step", "train/loss_epoch"]].tolist() == [
        0.1,
        1.0,
        2.0,
    ]
    assert table.loc["val", "val/f1"] == 0.5
    assert table["epoch"].tolist() == [0, 0]


def attempt(folder, start: int, stop: int, loss: float) -> None:
    """Train step by step and validate after every fourth, with Lightning's numbers of steps."""
    history = History(folder)
    for step in range(start, stop):
        history.log_metrics({"train/loss": loss, "epoch": step // 4}, step)
        if step % 4 == 3:
            history.log_metrics({"val/loss": loss, "epoch": step // 4}, step)


def test_a_later_attempt_replaces_what_it_trained_again(tmp_path):
    attempt(tmp_path, start=0, stop=10, loss=1.0)  # killed beyond the checkpoint of step 4
    attempt(tmp_path, start=4, stop=12, loss=2.0)

    table = read_history(tmp_path / "metrics.jsonl")
    train, val = (table[table["kind"] == kind] for kind in ("train", "val"))
    assert train["step"].tolist() == list(range(12))
    assert train["train/loss"].tolist() == [1.0] * 4 + [2.0] * 8
    assert val["step"].tolist() == [3, 7, 11]
    assert val["val/loss"].tolist() == [1.0, 2.0, 2.0]


def test_what_was_validated_beyond_the_checkpoint_is_gone_at_once(tmp_path):
    attempt(tmp_path, start=0, stop=10, loss=1.0)
    attempt(tmp_path, start=4, stop=6, loss=2.0)  # killed before it validates

    table = read_history(tmp_path / "metrics.jsonl")
    assert table["step"].tolist() == [0, 1, 2, 3, 3, 4, 5]


def test_an_attempt_that_goes_further_back_replaces_both(tmp_path):
    attempt(tmp_path, start=0, stop=8, loss=1.0)
    attempt(tmp_path, start=6, stop=12, loss=2.0)
    attempt(tmp_path, start=2, stop=4, loss=3.0)

    table = read_history(tmp_path / "metrics.jsonl").query("kind == 'train'")
    assert table["train/loss"].tolist() == [1.0, 1.0, 3.0, 3.0]


def test_scores_and_validations_afterwards_keep_the_training(tmp_path):
    attempt(tmp_path, start=0, stop=8, loss=1.0)
    for f1 in (0.7, 0.8):  # `test` starts counting at 0
        History(tmp_path).log_metrics({"test/f1": f1, "epoch": 0}, step=0)
    History(tmp_path).log_metrics({"val/loss": 9.0, "epoch": 0}, step=0)
    attempt(tmp_path, start=8, stop=9, loss=2.0)

    table = read_history(tmp_path / "metrics.jsonl")
    assert table.query("kind == 'train'")["train/loss"].tolist() == [1.0] * 8 + [2.0]
    assert table.query("kind == 'test'")["test/f1"].tolist() == [0.8]


def test_a_replaced_value_stays_replaced_by_nan(tmp_path):
    for f1 in (0.7, math.nan):
        History(tmp_path).log_metrics({"test/f1": f1}, step=0)

    assert read_history(tmp_path / "metrics.jsonl")["test/f1"].isna().all()


def test_an_empty_file_is_an_empty_table(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert read_history(tmp_path / "metrics.jsonl").empty


def test_the_best_values_leave_out_what_was_replaced(tmp_path):
    assert best_values(tmp_path / "metrics.jsonl") == {}
    for start, f1 in ((0, [0.5, 0.9, math.nan]), (1, [0.6, 0.4])):
        history = History(tmp_path)
        for step, value in enumerate(f1, start):
            history.log_metrics({"train/loss": 1.0}, step)
            named = dict.fromkeys(["val/f1", *LESS_IS_BETTER], value)
            history.log_metrics(named, step)

    assert best_values(history.path) == {"val/f1": 0.6, **dict.fromkeys(LESS_IS_BETTER, 0.4)}
