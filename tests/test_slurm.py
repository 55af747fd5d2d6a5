"""Job scripts and their submission; tests/slurm/run.sh runs them under a real Slurm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from callbacks.errors import RunError
from experiments.running import slurm
from experiments.running.slurm import Job, main
from experiments.running.status import status

FAKE = """#!/bin/bash
echo "$(basename $0) $*" >> {calls}
cat {answers}/$(basename $0) 2> /dev/null || true
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Stand-ins for sbatch, squeue, srun and scontrol that record their calls."""
    for folder in ("bin", "answers"):
        (tmp_path / folder).mkdir()
    for name in ("sbatch", "squeue", "srun", "scontrol"):
        program = tmp_path / "bin" / name
        program.write_text(FAKE.format(calls=tmp_path / "calls", answers=tmp_path / "answers"))
        program.chmod(0o755)
    (tmp_path / "answers" / "sbatch").write_text("77\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def directives(job: Job) -> set[str]:
    lines = job.script().splitlines()
    return {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}


def test_the_script_asks_for_what_the_training_uses():
    job = Job("vgg_ce", gpus=4, nodes=2, seeds="0-2", account="lab", sbatch="--qos=low --mem=9G")
    assert directives(job) >= {
        "--job-name=vgg_ce",
        "--array=0-2",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--signal=USR1@120",
        "--requeue",
        "--open-mode=append",
        "--output=runs/vgg_ce/seed%a/slurm.log",
        "--account=lab",
        "--qos=low",
        "--mem=9G",
    }
    for flag in ("devices=4", "num_nodes=2", "strategy=ddp", "sync_batchnorm=true"):
        assert f"--trainer.{flag}" in job.script()


def test_a_single_process_is_not_distributed():
    script = Job("demo", gpus=0).script()
    assert "gpus" not in script
    assert "ddp" not in script
    assert "--trainer.accelerator=cpu" in script
    assert "sync_batchnorm" not in Job("demo", gpus=0, processes=2).script()


def test_a_container_and_a_setup():
    lines = Job("demo", setup="module load cuda", container="a b.sif").script().splitlines()
    assert "module load cuda" in lines
    assert any("apptainer exec --nv 'a b.sif' python -c" in line for line in lines)


@pytest.mark.parametrize(
    ("option", "instead"), [("--name=a", "--name"), ("--seed_everything", "--seeds")]
)
def test_what_the_job_gives_to_each_training_is_not_an_option(option, instead):
    with pytest.raises(RunError, match=f"use {instead} of submit instead"):
        Job("demo", options=(option, "1")).script()


def test_the_cores_of_a_process_reach_it():
    lines = Job("demo", cpus=7).script().splitlines()
    assert "#SBATCH --cpus-per-task=7" in lines
    assert "export SRUN_CPUS_PER_TASK=7" in lines


def test_submitted_and_not_twice(cluster, monkeypatch, capsys):
    command = ["slurm", "demo", "--seeds=0,2", "--", "--trainer.max_epochs=3"]
    monkeypatch.setattr("sys.argv", command)
    main()
    assert "Submitted job 77: demo, seeds 0,2" in capsys.readouterr().out
    assert "sbatch --parsable runs/demo/submit.sh" in (cluster / "calls").read_text()
    assert "--trainer.max_epochs=3" in Path("runs/demo/submit.sh").read_text()
    assert Path("runs/demo/seed2").is_dir()  # Slurm writes its log there

    (cluster / "answers" / "squeue").write_text(f"demo|2|77_2|PENDING|{Path.cwd()}\n")
    with pytest.raises(SystemExit) as exit_:
        main()
    assert (
        exit_.value.code
        == "error: demo seed 2 is already in the queue: wait for job 77_2, or cancel it."
    )


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (1, False), (137, False)])
def test_requeued_if_it_says_so(cluster, code, requeued):
    (cluster / "bin" / "srun").write_text(f"#!/bin/bash\nexit {code}\n")
    environment = os.environ | {"SLURM_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(["bash", "-c", Job("demo").script()], env=environment)
    assert done.returncode == code
    calls = cluster / "calls"
    assert ("scontrol requeue 77" in (calls.read_text() if calls.exists() else "")) == requeued


def test_options_reach_the_training_as_they_are(cluster):
    (cluster / "bin" / "srun").write_text('#!/bin/bash\nshift 2; exec "$@"\n')
    job = Job("demo", options=("--data.root=a 'b' $HOME",))
    script = job.script().replace(sys.executable, "printf '%s\\n'")
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    given = done.stdout.splitlines()
    assert given[-1] == "--data.root=a 'b' $HOME"
    assert given[given.index("--seed_everything") + 1] == "3"


def test_a_signal_that_comes_too_early_waits_and_one_that_comes_too_late_is_ignored():
    program = """
import os, signal
os.kill(os.getpid(), signal.SIGUSR1)  # as if it arrived during the imports
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
assert told == [1]
signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # Lightning restores it
os.kill(os.getpid(), signal.SIGUSR1)
"""
    command = [sys.executable, "-c", slurm.HOLD_SIGNAL, "-c", program]
    assert subprocess.run(command).returncode == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [(None, "There is no squeue on this machine"), ("exit 1", "squeue failed: no controller")],
)
def test_mistakes_are_one_sentence(cluster, monkeypatch, answer, said):
    if answer is None:
        monkeypatch.setenv("PATH", "")
    else:
        failing = f"#!/bin/bash\necho no controller >&2; {answer}\n"
        (cluster / "bin" / "squeue").write_text(failing)
    monkeypatch.setattr("sys.argv", ["slurm", "demo"])
    with pytest.raises(SystemExit, match=said):
        main()
    monkeypatch.setattr("sys.argv", ["slurm", "domo"])
    with pytest.raises(SystemExit, match=r"There is no (recipe 'domo'|squeue)|squeue failed"):
        main()


def test_seeds_are_understood_or_refused():
    assert Job("vgg_ce", seeds="0,2,5-7").each_seed == [0, 2, 5, 6, 7]
    assert Job("vgg_ce", seeds="0-2%2").each_seed == [0, 1, 2]
    for seeds in ("a", "0-", "0-6:2", ""):
        with pytest.raises(RunError, match="is not a list of seeds"):
            Job("vgg_ce", seeds=seeds).each_seed  # noqa: B018


def test_status_of_runs_that_wait_run_and_ended(cluster):
    def run(name, epochs):
        folder = Path("runs", name, "seed0")
        folder.mkdir(parents=True)
        if epochs is None:
            return
        (folder / "config.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 5}}))
        batches = {"is_last_batch": True, "current": {"ready": 4, "completed": 4}}
        progress = {"current": {"processed": epochs}}
        loop = {"epoch_progress": progress, "epoch_loop.batch_progress": batches}
        state = {"global_step": 4 * epochs, "loops": {"fit_loop": loop}}
        torch.save(state, folder / "last.ckpt")
        row = {"attempt": 1, "step": 3, "epoch": 0, "val/balanced_accuracy": 0.5}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")

    for name, epochs in (("done", 5), ("half", 2), ("waits", None)):
        run(name, epochs)
    here = Path.cwd()
    (cluster / "answers" / "squeue").write_text(
        f"half|0|8_0|RUNNING|{here}\nwaits|0|9_0|PENDING|{here}\ndone|0|7_0|RUNNING|/elsewhere\n"
    )
    table = status().set_index("run")
    assert table["epochs"].to_dict() == {"done": "5/5", "half": "2/5", "waits": "0/?"}
    assert table["state"].to_dict() == {
        "done": "finished",
        "half": "running, job 8_0",
        "waits": "pending, job 9_0",
    }
    assert table.loc["half", "best val"] == 0.5
