import errno
import zipfile
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from callbacks.errors import RunError
from callbacks.safety.checkpoint_io import DurableCheckpointIO
from callbacks.safety.progress import read_progress


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, _):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.ckpt"
    DurableCheckpointIO().save_checkpoint({"step": 1}, path)
    return path


def step(path: Path) -> int:
    return DurableCheckpointIO().load_checkpoint(path)["step"]


def test_replaces_and_keeps_what_was_the_last(saved):
    DurableCheckpointIO().save_checkpoint({"step": 2}, saved)

    assert step(saved) == 2
    assert step(saved.with_name("previous.ckpt")) == 1
    assert len(list(saved.parent.iterdir())) == 2


def test_of_the_best_only_one_is_kept(tmp_path):
    for number in (1, 2):
        DurableCheckpointIO().save_checkpoint({"step": number}, tmp_path / "best.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_makes_the_folder(tmp_path):
    DurableCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "run" / "seed0" / "last.ckpt")
    assert step(tmp_path / "run" / "seed0" / "last.ckpt") == 1


def test_an_exception_leaves_the_old_checkpoint(saved, monkeypatch):
    def save(checkpoint, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(KeyboardInterrupt):
        DurableCheckpointIO().save_checkpoint({"step": 2}, saved)

    assert step(saved) == 1
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
@pytest.mark.parametrize("size", [1, 1_000_000], ids=["fails at flush", "fails inside torch.save"])
def test_a_full_disk_is_said_with_the_file(saved, monkeypatch, size):
    name = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: name(Path("/dev/full"), mode))

    with pytest.raises(RunError, match=rf"disk is full: {saved} .* unchanged"):
        DurableCheckpointIO().save_checkpoint({"step": torch.zeros(size)}, saved)

    monkeypatch.undo()
    assert step(saved) == 1
    assert list(saved.parent.iterdir()) == [saved]


def test_other_errors_stay_what_they_are(saved, monkeypatch):
    def save(checkpoint, file):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="Input/output"):
        DurableCheckpointIO().save_checkpoint({"step": 2}, saved)


def test_loads_weights_only(tmp_path):
    DurableCheckpointIO().save_checkpoint({"folder": Path("/")}, tmp_path / "last.ckpt")
    with pytest.raises(RunError, match=r"last.ckpt is damaged \(UnpicklingError\)"):
        DurableCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


def test_takes_no_storage_options(tmp_path):
    with pytest.raises(TypeError, match="storage_options"):
        DurableCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt", storage_options={})


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 on torch 2.15
@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # eight rows need none
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")  # what resuming means
def test_a_training_resumes_from_it(tmp_path):
    def fit(epochs: int, **kwargs) -> Trainer:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            plugins=[DurableCheckpointIO()],
            callbacks=[ModelCheckpoint(tmp_path, save_last=True)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Line(), DataLoader(torch.ones(8, 2), batch_size=2), **kwargs)
        return trainer

    fit(epochs=2)
    weights = torch.load(tmp_path / "last.ckpt")["state_dict"]
    resumed = fit(epochs=2, ckpt_path="last")

    assert resumed.global_step == 8
    torch.testing.assert_close(resumed.lightning_module.state_dict(), weights, rtol=0, atol=0)
    assert fit(epochs=3, ckpt_path="last").global_step == 12
    assert not list(tmp_path.glob(".*"))


def test_progress_is_read_without_tensors(tmp_path):
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2)).backward()
    optimizer.step()
    plain = {"global_step": 7, "loops": {"fit_loop": {"current": [1, True, None, 0.5, "end"]}}}
    states = {"state_dict": layer.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    path = tmp_path / "last.ckpt"
    DurableCheckpointIO().save_checkpoint(plain | states, path)
    progress = read_progress(path)
    assert {key: progress[key] for key in plain} == plain
    assert [*progress["state_dict"]] == ["weight", "bias"]
    assert not any(isinstance(value, torch.Tensor) for value in progress["state_dict"].values())

    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(zipfile.BadZipFile):
        read_progress(path)
