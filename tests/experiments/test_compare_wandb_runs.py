import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import wandb

from callbacks.errors import RunError
from experiments.compare.__main__ import main
from experiments.compare.runs import read_run
from experiments.compare.wandb_runs import read_project


def kept(file, base):
    """A file on the server, named by its path relative to ``base``."""
    name = str(file.relative_to(base))

    def download(root):
        copy = Path(root, name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        return copy.open()

    return SimpleNamespace(name=name, download=download)


def remote(folder):
    """The run of a folder on the server, with W&B's own files."""
    own = Path("wandb/config.yaml")
    own.parent.mkdir(exist_ok=True)
    own.write_text("_wandb: {}")
    files = [kept(own, own.parent), *(kept(f, folder.parents[1]) for f in folder.iterdir())]
    return SimpleNamespace(id="-".join(folder.parts[-2:]), files=lambda: iter(files))


@pytest.fixture
def server(monkeypatch):
    """A stand-in for wandb.Api that records its arguments."""

    def set_runs(answer):
        def runs(self, project):
            assert project == "me/longderm"
            if isinstance(answer, Exception):
                raise answer
            return iter(answer)

        api = type("Api", (), {"__init__": lambda self, timeout: None, "runs": runs})
        monkeypatch.setattr(wandb, "Api", api)

    return set_runs


def test_a_run_from_the_server_is_the_run_of_the_folder(server, make_run):
    folder = make_run(seed=3, decide=True)
    server([remote(folder)])
    runs, left_out = read_project("me/longderm")
    assert left_out == []
    (run,), local = runs, read_run(folder)
    assert run.source == "me/longderm/ce-seed3"
    for name in ("name", "seed", "classes", "split", "synthetic", "metrics", "config"):
        assert getattr(run, name) == getattr(local, name), name
    pd.testing.assert_frame_equal(run.predictions, local.predictions)
    pd.testing.assert_frame_equal(run.history, local.history)


def test_untested_and_half_written_runs_are_named_and_left_out(server, make_run):
    young, broken = make_run("young"), make_run("broken")
    for file in young.iterdir():
        file.unlink()
    (broken / "results.json").write_text("{")
    server([remote(make_run()), remote(young), remote(broken)])
    runs, left_out = read_project("me/longderm")
    assert [run.name for run in runs] == ["ce"]
    assert left_out[0] == (
        "me/longderm/young-seed0 has no results: evaluate it and run `make sync`."
    )
    assert left_out[1].startswith("me/longderm/broken-seed0 is incomplete (Expecting")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "No evaluated run in me/longderm"),
        (wandb.errors.UsageError("No API key configured."), "No API key.*wandb login"),
        (ValueError("Could not find project longderm"), "Could not find project"),
    ],
)
def test_refusals(server, answer, said):
    server(answer)
    with pytest.raises(RunError, match=said):
        read_project("me/longderm")


def test_command_line(server, make_run, monkeypatch, capsys):
    server([remote(make_run()), remote(make_run("other", skill=2.0))])
    arguments = ["compare", "--project", "me/longderm", "--baseline", "ce"]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert "over 2000 resamples of the lesions" in capsys.readouterr().out
    assert '"name":"other"' in Path("compare/index.html").read_text()
