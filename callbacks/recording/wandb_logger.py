"""The dashboard, which may fail at any time without harm to the training that it shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal

import wandb
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from callbacks.errors import reason
from callbacks.recording import wandb_service
from callbacks.recording.history import best_of, best_values

GRACE_SECONDS = 15.0  # for wandb-core to keep its own time-out
ONLY_HISTORY = "metrics go on in metrics.jsonl only"


class ResilientWandbLogger(WandbLogger):
    """Lightning's WandbLogger that neither stops a training nor keeps it from ending.

    Where the run goes is decided once, when it is first needed: by ``mode``, else by WANDB_MODE
    or ``wandb offline``, else online if there is an API key and the server answers within three
    seconds. A run that cannot be online is an offline one with the same id, and ``wandb sync``
    joins the two. If wandb dies in mid-training, that is said once and nothing else happens.

    Validation metrics are drawn over epochs, with their best value in the summary. They are
    defined one by one: a glob with a summary also matches images and tables, and hides them.

    Args:
        project: Where the run is shown; if not given, WANDB_PROJECT or longderm. A sweep knows
            its own.
        name: How the run is called on the dashboard, if not by WANDB_NAME.
        id: What a resumed run is recognised by; in a sweep the agent's id is kept.
        group: What the seeds have in common, if not given by WANDB_RUN_GROUP: the experiment.
        job_type: A label such as "train".
        tags: Labels to filter by.
        save_dir: The run folder.
        mode: "auto" as above; "online" leaves out the search for a server, not the fall-back.
        finish_timeout: Seconds that the end of a run waits for its upload.
    """

    _running: ClassVar[ResilientWandbLogger | None] = None

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        id: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        save_dir: str | Path = ".",
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        finish_timeout: float = 60.0,
    ) -> None:
        in_sweep = os.environ.keys() & {"WANDB_RUN_ID", "WANDB_SWEEP_ID"}
        super().__init__(
            project=project or os.environ.get("WANDB_PROJECT") or "longderm",
            name=os.environ.get("WANDB_NAME") or name,
            id=None if in_sweep else id,
            group=os.environ.get("WANDB_RUN_GROUP") or group,
            job_type=job_type,
            tags=tags,
            save_dir=save_dir,
        )
        del self._wandb_init["anonymous"]  # deprecated: wandb warns of it, whatever its value
        self.mode: str = mode
        self.finish_timeout = finish_timeout
        self._best: dict[str, float] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, started on first use. Calls on it are not guarded; those below are."""
        if self._experiment is None:
            self._start()
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        with self._surviving():
            self._define(metrics)
            super().log_metrics(metrics, step)
            self._keep_best(metrics)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        with self._surviving():
            super().log_hyperparams(*args, **kwargs)

    @rank_zero_only
    def log_media(self, media: Mapping[str, Any], step: int | None = None) -> None:
        """Logs wandb's images, tables and charts by name."""
        self.log_metrics(media, step)

    @rank_zero_only
    def log_artifact(self, artifact: wandb.Artifact) -> None:
        with self._surviving():
            self.experiment.log_artifact(artifact)

    @rank_zero_only
    def keep_files(self, files: Iterable[Path], base: Path) -> None:
        """Uploads those of the files that exist, under their paths from ``base``."""
        with self._surviving(), redirect_stderr(StringIO()):  # it says of each that it is linked
            for file in filter(Path.exists, files):
                self.experiment.save(str(file), str(base), policy="now", glob=False)

    @rank_zero_only
    def update_config(self, config: Mapping[str, Any]) -> None:
        with self._surviving():
            self.experiment.config.update(dict(config), allow_val_change=True)

    @rank_zero_only
    def add_tag(self, tag: str) -> None:
        with self._surviving():
            self.experiment.tags = tuple({*(self.experiment.tags or ()), tag})

    @rank_zero_only
    def mark_preempting(self) -> None:
        with self._surviving():
            self.experiment.mark_preempting()

    @classmethod
    def finish(cls, exit_code: int = 0) -> None:
        """Ends this process's run, if there is one, in bounded time; never raises.

        Args:
            exit_code: 0 for success; in a ``finally`` that an error goes through, 0 counts as 1.
        """
        logger, ResilientWandbLogger._running = ResilientWandbLogger._running, None
        if logger is None:
            return
        code = exit_code or int(not isinstance(sys.exception(), SystemExit | None))
        run, logger._experiment, logger._best = logger._experiment, None, {}
        if not wandb_service.shut_down(run, code, logger.finish_timeout + GRACE_SECONDS):
            rank_zero_warn("W&B did not take the end of the run: its last minutes may be missing.")

    def _start(self) -> None:
        self.finish()  # wandb takes two runs in one process for one
        ResilientWandbLogger._running = self
        folder = Path(str(self.save_dir), "wandb").absolute()
        if "WANDB_DIR" in os.environ:
            rank_zero_info(f"WANDB_DIR is not used: what W&B writes lies in {folder}.")
        os.environ.setdefault("WANDB_DATA_DIR", str(folder))  # or tables fill the home directory
        for mode, else_ in ((None, "logging offline under the same id"), ("offline", ONLY_HISTORY)):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                return self._init(mode or self._resolve_mode())
            except Exception as error:  # whatever it is, no training depends on it
                rank_zero_warn(f"W&B: {reason(error)}; {else_}.")
                wandb_service.shut_down()  # or wandb-core refuses the id, which it has in use
        self._experiment = wandb.init(mode="disabled")

    def _resolve_mode(self) -> str:
        if self.mode != "auto":
            return self.mode
        settings = wandb.setup().settings
        if "WANDB_MODE" in os.environ or settings.mode != "online":
            return str(settings.mode)
        if not wandb_service.has_key():
            rank_zero_info("W&B logs offline: there is no API key, `wandb login` stores one.")
            return "offline"
        if not wandb_service.server_answers(settings.base_url):
            raise ConnectionError(f"{settings.base_url} does not answer")
        return "online"

    def _init(self, mode: str) -> None:
        if mode == "online" and not wandb_service.has_key():  # wandb would prompt for one, and wait
            raise wandb.Error("there is no API key, `wandb login` stores one")
        settings = wandb.Settings(
            console="off",  # progress bars would fill it; the terminal or Slurm has the output
            finish_timeout=self.finish_timeout,
            init_timeout=60.0,
            quiet=True,  # our own tables end the run
            x_transaction_log_flush_interval=1.0,  # what a kill costs, in seconds
        )
        self._wandb_init.update(mode=mode, settings=settings)
        self._experiment = None
        self._experiment = super().experiment
        self.mode = mode

    def _define(self, metrics: Mapping[str, Any]) -> None:
        new = {key for key in metrics if key.startswith("val/")} - self._best.keys()
        scalars = {key for key in new if isinstance(metrics[key], Real)}
        earlier = best_values(Path(str(self.save_dir), "metrics.jsonl")) if scalars else {}
        for key in scalars:
            self.experiment.define_metric(key, step_metric="epoch", summary=best_of(key).__name__)
            self._best[key] = earlier.get(key, metrics[key])

    def _keep_best(self, metrics: Mapping[str, Any]) -> None:
        """Repeats the best value if it is an older one; a resumed wandb does not know of it."""
        for key in metrics.keys() & self._best.keys():
            best, value = best_of(key), metrics[key]
            if best(value, self._best[key]) == value:
                self._best[key] = value
            else:
                self.experiment.summary.update({key: {best.__name__: self._best[key]}})

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Puts a run that accepts everything and does nothing in the place of a lost one."""
        try:
            yield
        except wandb_service.LOST as error:
            rank_zero_warn(f"W&B is lost: {reason(error)}; {ONLY_HISTORY}.")
            self._experiment = wandb.init(mode="disabled")
