"""A run in MLflow: where MLFLOW_TRACKING_URI says, else in MLflow's own default, `mlflow.db` here."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprune.core.redaction import holds_secret, redacted
from autoprune.tracking.tracker import About, Ending, Row

EXPERIMENT = "autoprune"
"""Used unless MLFLOW_EXPERIMENT_NAME is set."""

_MOST_METRICS = 1000  # that MLflow takes at once
_STATES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_SQLITE = "sqlite:///"


class MlflowTracker:
    """One run of MLflow; a `Tracker`."""

    def __init__(self, about: About, noted: Mapping[str, Any]) -> None:
        # A server that is away is tried again by whoever calls; MLflow alone would try for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        import mlflow
        from mlflow.tracking import MlflowClient

        given = os.environ.get("MLFLOW_TRACKING_URI")
        address: str = given or noted.get("address") or mlflow.get_tracking_uri()
        self._client: Any = MlflowClient(tracking_uri=address)
        run = self._run_of(noted.get("run"))
        if run is None:
            self._id = self._client.create_run(self._experiment(address), run_name=about.name).info.run_id
            run, self.logged = self._client.get_run(self._id), -1
        else:
            self._id = run.info.run_id
            steps = [metric.step for metric in self._client.get_metric_history(self._id, "rung")]
            self.logged = max(steps, default=-1)
            self._client.update_run(self._id, status="RUNNING")
        self._log_settings(run.data.params, about)
        self.place = f"run {self._id} at {redacted(address)}"
        self.noted = {"run": self._id} | ({} if holds_secret(address) else {"address": address})

    def log(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch: list[Metric] = []
        for row in rows:
            metrics = [Metric(name, value, now, row.number) for name, value in row.values.items()]
            if len(batch) + len(metrics) > _MOST_METRICS:
                self._client.log_batch(self._id, metrics=batch)
                batch = []
            batch += metrics
        self._client.log_batch(self._id, metrics=batch)
        self.logged = max(self.logged, *(row.number for row in rows))

    def finish(self, ending: Ending) -> None:
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), max(self.logged, 0)
        best = [Metric(f"best/{name}", value, now, step) for name, value in ending.best.items()]
        self._client.log_batch(self._id, metrics=best)
        if ending.rows:
            table = {"columns": ending.columns, "data": ending.rows}
            self._client.log_dict(self._id, table, "front.json")
        for path in ending.files:
            self._client.log_artifact(self._id, str(path))
        self._client.set_terminated(self._id, status=_STATES[ending.state])

    def _run_of(self, id: str | None) -> Any:
        """The run of an id; None where there is none any more."""
        from mlflow.exceptions import MlflowException

        if id is None:
            return None
        try:
            return self._client.get_run(id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _experiment(self, address: str) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=_files_beside(address)))

    def _log_settings(self, before: Mapping[str, str], about: About) -> None:
        """The settings; MLflow never changes those that a run has, so what a resume changed is a tag."""
        from mlflow.entities import Param, RunTag

        now = {name: str(value) for name, value in about.settings.items()}
        new = [Param(name, value) for name, value in now.items() if name not in before]
        changed = [
            RunTag(f"now.{name}", value) for name, value in now.items() if before.get(name, value) != value
        ]
        self._client.log_batch(self._id, params=new, tags=[RunTag("autoprune.run", str(about.run)), *changed])


def _files_beside(address: str) -> str | None:
    """Where an experiment's files go: beside a database of another folder; None is MLflow's own choice.

    MLflow would put them into the folder that it was called from.
    """
    folder = Path(address.removeprefix(_SQLITE)).absolute().parent
    return str(folder / "mlruns") if address.startswith(_SQLITE) and folder != Path.cwd() else None
