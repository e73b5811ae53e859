"""Two runs of one name in one PostgreSQL database: no secret in what they write, no trial of the other's."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import sqlalchemy.orm

from autoprune.core.errors import AutopruneError
from autoprune.pipeline.places import expected_study
from autoprune.run.config import Config
from autoprune.run.folder import RUN, RunFolder
from autoprune.space.trial import Trial
from autoprune.strategy.samplers import make_proposer
from autoprune.strategy.study import Study
from tests.strategy.test_study import SPACE, repair, result
from tests.support.database_server import ENCODED, PASSWORD, postgresql
from tests.support.tiny_search import OPTIONS, autoprune, command, environment, write_inputs

NAME = "same-name"


@dataclass(frozen=True)
class Shared:
    """Two finished searches whose folders have one name, and the database of both."""

    base: Path
    url: str
    runs: tuple[Path, Path]
    said: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as address:
        yield f"postgresql+psycopg://me:{ENCODED}@{address}"


def make_database(server: str, name: str) -> str:
    """The URL of a new, empty database beside the server's first."""
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="module")
def shared(server: str, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Both searches at the same time; each with another seed."""
    base = tmp_path_factory.mktemp("shared")
    write_inputs(base)
    env = environment(base / "cache")
    runs = (base / "a" / NAME, base / "b" / NAME)
    drivers = []
    for seed, run in enumerate(runs):
        words = ["search", "model", "--dataset", "rows.csv", *OPTIONS, "--storage", server]
        words += ["--seed", seed, "-o", run]
        drivers.append(
            subprocess.Popen(
                command(*words),
                cwd=base,
                env=env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    said = [driver.communicate(timeout=600)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    return Shared(base, server, runs, "".join(said), env)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_no_secret(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    for secret in (PASSWORD.encode(), ENCODED.encode()):
        assert [file for file in files if secret in file.read_bytes()] == []


# ---- the password -------------------------------------------------------------------------------


def test_no_file_of_a_run_or_an_export_and_no_message_has_the_password(shared: Shared) -> None:
    run = shared.runs[0]
    done = autoprune(["export", run, "--trial", "1", "-o", "out"], cwd=shared.base, env=shared.environment)
    for folder in (run, shared.base / "out", shared.base / "cache"):
        assert_no_secret(folder)
    said = shared.said + done.stdout + done.stderr
    assert PASSWORD not in said
    assert ENCODED not in said
    hidden = shared.url.replace(ENCODED, "***")
    assert read(run / RUN)["config"]["storage"] == hidden
    for page in (run / "report.html", shared.base / "out" / "README.md"):
        assert hidden in page.read_text(encoding="utf-8")


def test_resume_asks_for_the_password_and_takes_it_from_wherever_it_comes(shared: Shared) -> None:
    run = shared.runs[0]

    def resumed(*words: object, code: int = 0, **more: str) -> str:
        env = {**shared.environment, **more}
        done = autoprune(["resume", run, *words], cwd=shared.base, env=env, code=code)
        assert_no_secret(run)
        return done.stdout + done.stderr

    assert "AUTOPRUNE_STORAGE" in resumed(code=2)
    assert "password authentication failed" in resumed(code=2, PGPASSWORD="wrong")
    resumed("--trials", "+1", PGPASSWORD=PASSWORD)
    resumed(AUTOPRUNE_STORAGE=shared.url)
    other = shared.url.replace(ENCODED, PASSWORD.replace("%", "%25"))  # as somebody types it
    said = resumed("--storage", other)
    assert PASSWORD not in said


# ---- which trials are whose ---------------------------------------------------------------------


def test_each_run_has_a_study_with_its_id_and_its_own_trials_alone(shared: Shared) -> None:
    names = set()
    database = optuna.storages.RDBStorage(shared.url)
    for run in shared.runs:
        about, front = read(run / RUN), read(run / "front.json")
        assert about["study"] == f"{NAME}-{about['id']}"
        names.add(about["study"])
        stored = optuna.load_study(study_name=about["study"], storage=database).get_trials()
        assert [trial["number"] for trial in front["trials"]] == [held.number for held in stored]
        for trial, kept in zip(front["trials"], stored, strict=True):
            levels = {f"{u}.{part}": level[part] for u, level in trial["levels"].items() for part in level}
            assert levels == kept.params
            assert trial["seconds"] == kept.user_attrs["seconds"]
    assert set(optuna.get_all_study_names(database)) == names
    database.engine.dispose()
    assert len(names) == 2


def test_a_run_whose_study_is_gone_is_told(shared: Shared, server: str) -> None:
    empty = make_database(server, "empty")
    done = autoprune(
        ["resume", shared.runs[1], "--storage", empty], cwd=shared.base, env=shared.environment, code=2
    )
    assert "has no study" in done.stderr


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> str:
    if backend == "sqlite":
        return f"sqlite:///{tmp_path}/shared.db"
    return str(request.getfixturevalue("server"))


def opened(url: str, name: str, seed: int, **more: Any) -> Study:
    proposer = make_proposer("random", space=SPACE, seed=seed, repair=repair)
    return Study(Path("unused"), SPACE, proposer=proposer, storage=url, name=name, **more)


def drive_at_once(studies: Sequence[Study]) -> None:
    """Thirty trials of each, by a thread of its own; each is read back as it was told."""
    wrong: list[Trial] = []

    def drive(study: Study) -> None:
        for _ in range(30):
            asked = study.ask()
            told = result(asked.candidate)
            done = study.tell(asked.token, told)
            wrong.extend([done] if done.candidate != told.candidate else [])

    threads = [threading.Thread(target=drive, args=[study]) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_written_is_read_back_by_its_own_number(url: str, tmp_path: Path) -> None:
    """Even where two drivers write into one study, as of a folder that was copied."""
    both = first, second = [opened(url, f"both-{tmp_path.name}", seed) for seed in range(2)]
    theirs: list[Trial] = []

    def write_between(session: sqlalchemy.orm.Session) -> None:
        """What another driver may do at any time: it writes when the first's trial is in the database."""
        if session.get_bind() is first._kept.engine and not theirs:
            theirs.append(Trial(0, SPACE.untouched(), failure="theirs"))
            theirs.append(second.add(theirs[0]))

    asked = first.ask()
    sqlalchemy.event.listen(sqlalchemy.orm.Session, "after_commit", write_between)
    try:
        done = first.tell(asked.token, result(asked.candidate))
    finally:
        sqlalchemy.event.remove(sqlalchemy.orm.Session, "after_commit", write_between)
    assert (done.number, done.candidate, done.failure) == (0, asked.candidate, None)
    assert (theirs[1].number, theirs[1].failure) == (1, "theirs")
    drive_at_once(both)
    numbers = [trial.number for study in both for trial in study.trials()]
    assert sorted(numbers) == list(range(62))
    for study in both:
        study.close()


def test_drivers_that_meet_in_an_empty_database_all_open_it(
    request: pytest.FixtureRequest, backend: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    if backend == "postgresql":
        url = make_database(request.getfixturevalue("server"), "new")
    together = threading.Barrier(6)
    names: list[str] = []

    def drive(seed: int) -> None:
        together.wait()
        study = opened(url, f"run-{seed}", seed)
        asked = study.ask()
        study.tell(asked.token, result(asked.candidate))
        names.append(f"run-{seed}")
        study.close()

    threads = [threading.Thread(target=drive, args=[seed]) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == [f"run-{seed}" for seed in range(6)]


def test_a_new_search_goes_on_with_no_study_that_is_there(url: str, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Config.of(storage=url), "")
    assert expected_study(run) == "absent"
    name = run.study_name()
    first = opened(url, name, 0, expect=expected_study(run))
    asked = first.ask()
    first.tell(asked.token, result(asked.candidate))
    first.close()
    with pytest.raises(AutopruneError, match="a new search goes on with none") as caught:
        opened(url, name, 1, expect="absent")
    assert name in str(caught.value)
    assert ENCODED not in str(caught.value)
    run.close()
    again = RunFolder.open(run.path, url)
    kept = opened(url, again.study_name(), 0, expect=expected_study(again))
    assert [trial.candidate for trial in kept.trials()] == [asked.candidate]
    kept.close()
    again.close()


def test_a_run_of_before_there_were_ids_keeps_its_study(url: str, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / f"old-{tmp_path.name}", Config.of(storage=url), "")
    about = {name: value for name, value in run.about().as_json().items() if name not in ("id", "study")}
    (run.path / RUN).write_text(json.dumps(about))
    run.close()
    kept = opened(url, run.path.name, 0)
    asked = kept.ask()
    kept.tell(asked.token, result(asked.candidate))
    kept.close()
    again = RunFolder.open(run.path, url)
    assert again.study_name() == run.path.name
    taken_up = opened(url, again.study_name(), 0, expect=expected_study(again))
    assert len(taken_up.trials()) == 1
    taken_up.close()
    again.close()
