"""Trainers of the tests."""

from pytorch_lightning import Callback, Trainer


def quiet_trainer(*callbacks: Callback, **options: object) -> Trainer:
    """A trainer on the CPU that prints nothing and writes neither logs nor checkpoints."""
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=list(callbacks), **(quiet | options))
