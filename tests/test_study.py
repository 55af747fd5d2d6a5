"""Studies: every row gets its options, and no run is lost or repeated."""

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from callbacks.errors import RunError
from experiments.recipes import find
from experiments.running import processes, study
from experiments.running.study import STUDIES as FOLDER
from experiments.running.study import Study, StudyRun
from tests.parsed import parsed

STUDIES = sorted(FOLDER.glob("*.yaml"))
ROWS = [
    pytest.param(run, id=run.name)
    for path in STUDIES
    for run in Study.read(path).runs
    if not run.seed
]


@pytest.mark.parametrize("run", ROWS)
def test_options_of_every_row_are_taken(run):
    fit, *_ = run.commands()
    config = parsed(*fit)
    assert config["name"] == run.name
    assert f"--data.size={config['data']['size']}" in fit


@pytest.fixture
def machine(monkeypatch):
    """A stand-in for the command line that records its arguments and fails where ``fails`` says."""

    class Machine:
        told, fails = [], ()

        def execute(self, command, log, _):
            verb, options = command[0], " ".join(command)
            self.told.append(options)
            if any(name in options for name in self.fails):
                log.write_text("error: out of luck\n")
                return 1
            if verb == "test":
                folder = Path(command[command.index("--config") + 1]).parent
                (folder / "results.json").write_text("{}")
            return 0

    stand_in = Machine()
    stand_in.told = []
    monkeypatch.setattr(study, "execute", stand_in.execute)
    return stand_in


@pytest.fixture
def two_rows(tmp_path):
    record = {
        "seeds": [0, 1],
        "options": {"data.size": 32, "model.lr": 0.1},
        "rows": {
            "first": {"experiment": "vgg_ce", "decide": "ArgMax"},
            "bbn": {"after": "first", "model.lr": None, "run": "runs/t-first/seed{seed}"},
        },
    }
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(record, sort_keys=False))
    return path


def test_a_row_is_trained_decided_and_tested(two_rows, machine):
    assert Study.read(two_rows, ["--data.root=x"]).complete(jobs=1) == []
    fit, decide, test = machine.told[:3]
    assert fit == (
        f"fit --config {find('vgg_ce')} --name t-first --seed_everything 0 "
        "--data.size=32 --model.lr=0.1 --data.root=x"
    )
    assert decide.startswith("validate --config runs/t-first/seed0/config.yaml")
    assert test.endswith("--ckpt_path runs/t-first/seed0/best.ckpt")
    assert "--run=runs/t-first/seed1" in machine.told[-2]
    assert "--model.lr" not in machine.told[-2]


def test_sets_are_chosen_with_or_without_a_rule(two_rows, machine):
    plain = [run.record for run in Study.read(two_rows).runs]
    record = yaml.safe_load(two_rows.read_text())
    record["rows"]["first"]["sets"] = "Marginal"
    record["rows"]["bbn"]["sets"] = "ClassConditional"
    two_rows.write_text(yaml.safe_dump(record, sort_keys=False))
    runs = Study.read(two_rows).runs
    both, alone = ([c for c in run.commands() if c[0] == "validate"] for run in runs[::2])
    assert both[0][-2:] == ["--trainer.callbacks.rule=ArgMax", "--trainer.callbacks.sets=Marginal"]
    assert alone[0][-2:] == [
        "--trainer.callbacks+=callbacks.ChooseDecision",
        "--trainer.callbacks.sets=ClassConditional",
    ]
    assert "sets Marginal\n" in runs[0].record
    assert not [text for text in plain if "sets" in text]


def test_the_last_epoch_is_tested_before_the_best_where_it_is_asked_for(two_rows, machine):
    record = yaml.safe_load(two_rows.read_text()) | {"last": True}
    record["rows"]["bbn"]["last"] = False
    two_rows.write_text(yaml.safe_dump(record, sort_keys=False))
    assert Study.read(two_rows).complete(jobs=1) == []
    tested = [command.split("--ckpt_path ")[1] for command in machine.told if "test " in command]
    folders = ["runs/t-first/seed0", "runs/t-first/seed1"]
    assert tested[:4] == [f"{f}/{c}.ckpt" for f in folders for c in ("last", "best")]
    assert tested[4:] == [f"runs/t-bbn/seed{seed}/best.ckpt" for seed in range(2)]


def test_finished_runs_are_left_alone(two_rows, machine):
    Study.read(two_rows).complete(jobs=2)
    done = len(machine.told)
    assert Study.read(two_rows).complete(jobs=2) == []
    assert len(machine.told) == done


def test_a_run_is_the_same_elsewhere(two_rows, machine):
    Study.read(two_rows).complete(jobs=1)
    done = len(machine.told)
    elsewhere = ["--data.root=elsewhere", "--trainer.accelerator=cpu"]
    assert Study.read(two_rows, elsewhere).complete(jobs=1) == []
    assert len(machine.told) == done


@pytest.mark.parametrize(
    "other",
    [
        ["--data.size=48"],
        ["--model.criterion.weights=EffectiveNumber"],
        ["--model.network.pretrained=true"],
        ["--trainer.precision", "bf16-mixed"],
    ],
)
def test_finished_runs_of_other_options_are_not_taken_for_these(two_rows, machine, capsys, other):
    Study.read(two_rows).complete(jobs=1)
    failed = Study.read(two_rows, other).complete(jobs=1)
    assert [run.row for run in failed] == ["first", "first", "bbn", "bbn"]
    assert "runs/t-first/seed0 was trained with other options" in capsys.readouterr().out


def test_a_run_is_another_if_what_it_starts_from_is(two_rows, machine):
    Study.read(two_rows).complete(jobs=1)
    shutil.rmtree("runs/t-first")
    two_rows.write_text(two_rows.read_text().replace("decide: ArgMax", "model.momentum: 0.5"))
    failed = Study.read(two_rows).complete(jobs=1)
    assert [run.row for run in failed] == ["bbn", "bbn"]


def test_a_failure_is_named_and_the_rest_goes_on(two_rows, machine, capsys):
    machine.fails = ("t-first --seed_everything 0",)
    failed = Study.read(two_rows).complete(jobs=2)
    assert [(run.row, run.seed) for run in failed] == [("first", 0), ("bbn", 0)]
    assert Path("runs/t-bbn/seed1/results.json").exists()
    said = capsys.readouterr().out
    assert "t-first seed 0: failed: error: out of luck (runs/t-first/seed0/log.txt)" in said
    assert "t-bbn seed 0: not started, because first failed" in said


@pytest.mark.slow
def test_runs_are_trained_and_tested_in_processes_that_have_all_imports(lesions, tmp_path):
    small = {"test_images": 3, "val_images": 2}
    record = {
        "seeds": [0, 1],
        "options": {
            "data.root": str(lesions),
            "data.size": 32,
            "trainer.max_epochs": 1,
            "trainer.accelerator": "cpu",
            **{f"data.split.{name}": number for name, number in small.items()},
        },
        "rows": {
            "good": {"experiment": "small_ce"},
            "bad": {"experiment": "small_ce", "data.x": 1},
        },
    }
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(record, sort_keys=False))
    failed = Study.read(path).complete(jobs=2)
    assert [run.row for run in failed] == ["bad", "bad"]
    assert "error: There is no option --data.x" in Path("runs/t-bad/seed0/log.txt").read_text()
    assert "Test of runs/t-good/seed1/best.ckpt" in Path("runs/t-good/seed1/log.txt").read_text()
    assert Path("runs/t-good/seed1/results.json").exists()


@pytest.mark.parametrize(
    ("function", "arguments", "code"),
    [(os._exit, [75], 75), (int, ["no number"], 1), (os.abort, [], -signal.SIGABRT)],
)
def test_a_process_gives_the_exit_code_of_its_command(monkeypatch, function, arguments, code):
    monkeypatch.setattr(processes, "PRELOADED", [])
    assert processes.forked(function, *arguments) == code


def test_each_of_many_processes_gives_its_own_exit_code(monkeypatch):
    monkeypatch.setattr(processes, "PRELOADED", [])
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda n: processes.forked(os._exit, n % 5), range(40)))
    assert codes == [n % 5 for n in range(40)]


def test_long_values_are_recorded():
    modules = [f"network.blocks.{number}" for number in range(50)]
    run = StudyRun("t", "x", "vgg_ce", 0, (f"--trainer.callbacks.modules={modules}",))
    assert "network.blocks.49" in run.record


def test_options_are_flags():
    run = StudyRun("t", "x", "vgg_ce", 0)
    assert study._flag([1, 2], run.seed) == "[1, 2]"
    assert study._flag(0.003, 0) == "0.003"
    assert study._flag(False, 0) == "false"


def test_an_unknown_study_names_those_there_are(monkeypatch):
    monkeypatch.setattr("sys.argv", ["study", "experiments/studies/nothing.yaml"])
    with pytest.raises(SystemExit, match="imbalance, melanoma"):
        study.main()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [", "study.yaml, line 2 cannot be read as YAML: "),
        ("", "study.yaml holds no settings"),
        ("seeds: [0]", "study.yaml has no rows"),
        ("seeds: 0\nrows: {small_ce: }", "study.yaml has no list of seeds"),
        ("seeds: [0]\nrows: {small_ce: [1]}", r"study.yaml: rows.small_ce is \[1\]"),
        ("seeds: [0]\noptions: 3\nrows: {small_ce: }", "study.yaml: options is 3"),
        ("seeds: [0]\nrows: {small_cf: }", "in rows.small_cf: There is no recipe .*small_ce"),
    ],
)
def test_a_file_that_is_no_study_is_refused_in_one_sentence(text, message):
    Path("study.yaml").write_text(text + "\n")
    with pytest.raises(RunError, match=message):
        Study.read(Path("study.yaml"))


def test_a_row_cannot_come_before_what_it_starts_from(two_rows):
    text = two_rows.read_text()
    two_rows.write_text(text.replace("after: first", "after: last"))
    with pytest.raises(RunError, match="bbn starts from last, which is not above it"):
        Study.read(two_rows)
