"""One contract for both pools, then what only Ray can do: die, starve, share memory."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import ray
from ray import cloudpickle

from autoprune.core.errors import AutopruneError, BudgetError, StoppedError
from autoprune.workers import Outcome, Pool, RayPool, SerialPool, open_pool
from autoprune.workers.pool import WorkerTrace, run_all

# The workers cannot import this file under every import mode of pytest.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

LITTLE = 0.1  # cores of a worker here, so that many pools fit


def make(context: Mapping[str, object]) -> Callable[[object], object]:
    """A worker whose job is (verb, argument); leaves a file in `made` each time it is made."""
    made = context.get("made")
    if made is not None:
        (Path(str(made)) / uuid.uuid4().hex).touch()

    def work(job: object) -> object:
        assert isinstance(job, tuple)
        verb, argument = job
        return VERBS[verb](context, argument)

    return work


def fail(_: Mapping[str, object], message: str) -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError(message) from error


def die_once(_: Mapping[str, object], marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        os._exit(1)
    return "alive"


def look(context: Mapping[str, object], name: str) -> tuple[float, bool]:
    array = context[name]
    assert isinstance(array, np.ndarray)
    return float(array.sum()), bool(array.flags.writeable)


def nap(_: Mapping[str, object], seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


class TwoArgumentsError(BudgetError):
    """Pickle cannot make it again: it hands the message alone to the constructor."""

    def __init__(self, what: str, allowed: str) -> None:
        super().__init__(f"{what} is not {allowed}")


class LockedError(KeyError):
    """It cannot be pickled at all."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class NumberedError(OSError):
    """A class of the user's own, with a fact of its own."""

    number = 0


def break_as(_: Mapping[str, object], name: str) -> None:
    if name == "numbered":
        error = NumberedError(28, "No space left on device", "weights.bin")
        error.number = 7
        raise error
    if name == "exit":
        sys.exit("enough")
    kinds = {"ours": BudgetError, "key": KeyError, "locked": LockedError}
    raise TwoArgumentsError("x", "y") if name == "two" else kinds[name]("bad value")


VERBS: dict[str, Callable[[Mapping[str, object], object], object]] = {
    "square": lambda _, n: n * n,  # type: ignore[operator]
    "fail": fail,  # type: ignore[dict-item]
    "die": lambda _, code: os._exit(code),  # type: ignore[arg-type]
    "die once": die_once,  # type: ignore[dict-item]
    "look": look,  # type: ignore[dict-item]
    "nap": nap,  # type: ignore[dict-item]
    "bytes": lambda _, n: bytes(n),  # type: ignore[call-overload]
    "break": break_as,  # type: ignore[dict-item]
    "lock": lambda *_: threading.Lock(),
    "environment": lambda _, name: os.environ.get(name),  # type: ignore[call-overload]
}


def cannot_start(context: Mapping[str, object]) -> Callable[[object], object]:
    (Path(str(context["made"])) / uuid.uuid4().hex).touch()
    raise FileNotFoundError("no weights\nin this folder")


def says_what_to_do(_: Mapping[str, object]) -> Callable[[object], object]:
    raise BudgetError("raise --budget")


def dies_at_start(_: Mapping[str, object]) -> Callable[[object], object]:
    os._exit(1)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nonsense"])
def test_a_cluster_that_does_not_answer(address: str) -> None:
    assert not ray.is_initialized()  # it would be used instead: this test goes before the others
    with pytest.raises(AutopruneError, match="no Ray cluster answers at"):
        open_pool(make, {}, workers=1, address=address)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray for all tests of this file, as RayPool starts it; pools made meanwhile share it."""
    before = signal.getsignal(signal.SIGTERM)
    with RayPool(make, {}, workers=1, cpus_per_worker=LITTLE):
        assert signal.getsignal(signal.SIGTERM) is before
        yield
    assert not ray.is_initialized()


def serial(context: Mapping[str, object]) -> Pool:
    return SerialPool(make, context)


def two_workers(context: Mapping[str, object]) -> Pool:
    return RayPool(make, context, workers=2, cpus_per_worker=LITTLE)


ARRAYS = {"ramp": np.arange(100_000, dtype=np.float64)}


@pytest.fixture(scope="module", params=["serial", "ray"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    folder = tmp_path_factory.mktemp("made")
    context = {**ARRAYS, "made": str(folder)}
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    with (serial if request.param == "serial" else two_workers)(context) as pool:
        yield pool
        assert len(list(folder.iterdir())) == pool.size  # made once, however many jobs


def drain(pool: Pool) -> dict[int, Outcome]:
    """All Outcomes still due, by key."""
    outcomes: dict[int, Outcome] = {}
    while (outcome := pool.next(30)) is not None:
        assert outcome.key not in outcomes
        outcomes[outcome.key] = outcome
    return outcomes


class TestContract:
    def test_results_come_with_their_keys(self, made: Pool) -> None:
        for key in range(made.size):
            made.submit(key, ("square", key + 10))
        outcomes = drain(made)
        assert {key: outcome.result for key, outcome in outcomes.items()} == {
            key: (key + 10) ** 2 for key in range(made.size)
        }
        assert all(outcome.failure is None and outcome.worker for outcome in outcomes.values())

    def test_nothing_submitted(self, made: Pool) -> None:
        begun = time.monotonic()
        assert made.next(None) is None
        assert made.next(5) is None
        assert time.monotonic() - begun < 0.1

    def test_more_jobs_than_workers(self, made: Pool) -> None:
        for key in range(25):
            made.submit(key, ("square", key))
        assert made.free == 0
        assert {key: outcome.result for key, outcome in drain(made).items()} == {
            key: key * key for key in range(25)
        }

    def test_free_counts_what_is_out(self, made: Pool) -> None:
        assert made.free == made.size
        made.submit(0, ("square", 2))
        assert made.free == made.size - 1
        assert made.next(30) is not None
        assert made.free == made.size

    def test_an_exception_costs_the_job_alone(self, made: Pool, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG, "autoprune.workers.pool"):
            made.submit(0, ("fail", "bad\nvalue"))
            made.submit(1, ("square", 3))
            outcomes = drain(made)
        assert outcomes[0].failure == "ValueError: bad value (from KeyError: 'inner')"
        assert outcomes[0].result is None
        assert outcomes[1].result == 9
        assert "Traceback" in caplog.text

    @pytest.mark.parametrize(
        ("name", "kind", "text"),
        [("ours", BudgetError, "bad value"), ("key", KeyError, "'bad value'"),
         ("exit", RuntimeError, "SystemExit: enough"),
         ("numbered", NumberedError, "[Errno 28] No space left on device: 'weights.bin'")],
    )  # fmt: skip
    def test_an_error_keeps_its_class_where_all_jobs_must_succeed(
        self, made: Pool, name: str, kind: type[Exception], text: str
    ) -> None:
        with pytest.raises(kind) as caught:
            run_all(made, [("break", name)], lambda *_: None)
        assert type(caught.value) is kind or type(caught.value).__qualname__ == kind.__qualname__
        assert str(caught.value) == text
        assert isinstance(caught.value.__cause__, WorkerTrace)
        assert "in break_as" in str(caught.value.__cause__)
        if name == "numbered":
            assert (vars(caught.value)["number"], caught.value.args[0]) == (7, 28)
        assert made.next(5) is None

    def test_the_context_arrives(self, made: Pool) -> None:
        made.submit(0, ("look", "ramp"))
        answer = drain(made)[0].result
        assert isinstance(answer, tuple)
        assert answer[0] == ARRAYS["ramp"].sum()

    def test_seconds_are_the_jobs(self, made: Pool) -> None:
        made.submit(0, ("nap", 0.2))
        assert 0.2 <= drain(made)[0].seconds < 0.4

    def test_a_large_result(self, made: Pool) -> None:
        made.submit(0, ("bytes", 25_000_000))
        assert drain(made)[0].result == bytes(25_000_000)


@pytest.mark.parametrize("build", [serial, two_workers])
def test_close_forgets_and_may_be_repeated(
    local_ray: None, build: Callable[[Mapping[str, object]], Pool]
) -> None:
    pool = build({})
    pool.submit(0, ("square", 1))
    pool.close()
    pool.close()
    assert pool.next(None) is None


def test_a_second_close_leaves_a_later_ray_alone(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = RayPool(make, {}, workers=1, cpus_per_worker=LITTLE)
    calls: list[int] = []
    monkeypatch.setattr(pool, "_disconnect", lambda: calls.append(1))
    pool.close()
    pool.close()
    assert calls == [1]
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(0, ("square", 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_factory_that_raises_is_tried_once_a_worker(local_ray: None, tmp_path: Path, workers: int) -> None:
    with pytest.raises(FileNotFoundError, match="no weights\nin this folder"):
        open_pool(cannot_start, {"made": str(tmp_path)}, workers=workers, cpus_per_worker=LITTLE)
    assert len(list(tmp_path.iterdir())) <= max(1, workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_ours_keeps_its_kind(local_ray: None, workers: int) -> None:
    with pytest.raises(BudgetError, match="raise --budget"):
        open_pool(says_what_to_do, {}, workers=workers, cpus_per_worker=LITTLE)


@pytest.fixture(scope="module")
def pool(local_ray: None) -> Iterator[Pool]:
    with two_workers(ARRAYS) as pool:
        yield pool


class TestRay:
    def test_a_worker_that_dies_once(self, pool: Pool, tmp_path: Path) -> None:
        pool.submit(0, ("die once", str(tmp_path / "marker")))
        pool.submit(1, ("square", 5))
        outcomes = drain(pool)
        assert (outcomes[0].result, outcomes[0].failure) == ("alive", None)
        assert outcomes[1].result == 25

    def test_a_job_that_always_kills(self, pool: Pool) -> None:
        pool.submit(0, ("die", 7))
        for key in range(1, 6):
            pool.submit(key, ("square", key))
        outcomes = drain(pool)
        assert outcomes[0].result is None
        assert str(outcomes[0].failure).startswith("WorkerDied: 3 workers died on this job")
        assert "its worker process has died" in str(outcomes[0].failure)
        assert [outcomes[key].result for key in range(1, 6)] == [1, 4, 9, 16, 25]
        assert pool.free == pool.size

    def test_a_worker_killed_from_outside(self, pool: Pool) -> None:
        pool.submit(0, ("nap", 0.0))
        pool.submit(1, ("nap", 0.0))
        for outcome in drain(pool).values():
            os.kill(int(outcome.worker.split(":")[1]), signal.SIGKILL)
        for key in range(4):
            pool.submit(key, ("square", key))
        assert {key: outcome.result for key, outcome in drain(pool).items()} == {0: 0, 1: 1, 2: 4, 3: 9}

    def test_the_context_is_shared_not_copied(self, pool: Pool) -> None:
        pool.submit(0, ("look", "ramp"))
        assert drain(pool)[0].result == (ARRAYS["ramp"].sum(), False)

    def test_next_gives_up_in_time(self, pool: Pool) -> None:
        pool.submit(0, ("nap", 1.0))
        begun = time.monotonic()
        assert pool.next(0) is None
        assert pool.next(0.2) is None
        assert 0.2 <= time.monotonic() - begun < 0.8
        assert len(drain(pool)) == 1

    def test_what_cannot_be_pickled_fails(self, pool: Pool) -> None:
        pool.submit(0, ("lock", 0))
        pool.submit(1, ("square", threading.Lock()))
        outcomes = drain(pool)
        assert "pickle" in str(outcomes[0].failure)
        assert outcomes[1].failure is not None

    def test_an_error_that_cannot_be_rebuilt_keeps_its_name_message_and_exit_code(self, pool: Pool) -> None:
        with pytest.raises(RuntimeError, match="LockedError: 'bad value'"):
            run_all(pool, [("break", "locked")], lambda *_: None)
        with pytest.raises(BudgetError, match="TwoArgumentsError: x is not y") as caught:
            run_all(pool, [("break", "two")], lambda *_: None)
        assert (type(caught.value), caught.value.exit_code) == (BudgetError, 3)

    def test_workers_compute_with_one_thread(self, pool: Pool) -> None:
        for key, name in enumerate(("OMP_NUM_THREADS", "OMP_WAIT_POLICY")):
            pool.submit(key, ("environment", name))
        assert {outcome.result for outcome in drain(pool).values()} == {"1", "passive"}

    def test_bound_to_this_machine(self, pool: Pool) -> None:
        nodes = ray.nodes()
        assert [node["NodeManagerAddress"] for node in nodes] == ["127.0.0.1"]

    def test_a_gpu_that_is_not_there(self, local_ray: None) -> None:
        if ray.cluster_resources().get("GPU"):
            pytest.skip("this machine has a GPU")
        begun = time.monotonic()
        with pytest.raises(AutopruneError, match=r"0.1 CPU and 1 GPU each.* and 0 GPU, of which"):
            RayPool(make, {}, workers=2, cpus_per_worker=LITTLE, gpus_per_worker=1, patience=1)
        assert time.monotonic() - begun < 5

    def test_waiting_is_told(self, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("autoprune.workers.ray_staff._FIRST_WORD_SECONDS", 0.5)
        heard: list[str] = []
        with pytest.raises(AutopruneError):
            RayPool(make, {}, workers=1, cpus_per_worker=999, patience=3, tell=heard.append)
        assert len(heard) == 1
        assert "999 CPU" in heard[0]

    def test_a_worker_that_dies_at_start(self, local_ray: None) -> None:
        with pytest.raises(AutopruneError, match="died 3 times while it started"):
            RayPool(dies_at_start, {}, workers=1, cpus_per_worker=LITTLE)


def test_the_number_of_workers() -> None:
    assert isinstance(open_pool(make, {}, workers=0), SerialPool)
    with pytest.raises(AutopruneError, match="-1 workers"):
        open_pool(make, {}, workers=-1)


def test_importing_does_not_import_ray() -> None:
    code = "import sys, autoprune.workers; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


DRIVER = """
import time
import autoprune.workers as workers
import os
def make(context):
    return lambda job: os._exit(1) if job < 0 else time.sleep(job)
if __name__ == "__main__":
    pool = workers.RayPool(make, {}, workers=1)
    pool.submit(0, 0.0)
    assert pool.next().failure is None
    pool.submit(0, -1.0)
    assert pool.next().failure.startswith("WorkerDied")
    pool.submit(0, 0.0)
    worker = pool.next().worker.split(":")[1]
    pool.submit(0, 60.0)
    try:
        print(worker, flush=True)  # from here on a signal finds it waiting
        pool.next()
    except KeyboardInterrupt:
        begun = time.monotonic()
        pool.close()
        print(time.monotonic() - begun)
"""


def test_ctrl_c_ends_it_quickly_and_quietly(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert driver.stdout is not None
    worker = int(driver.stdout.readline())
    time.sleep(0.5)
    os.killpg(driver.pid, signal.SIGINT)
    out, err = driver.communicate(timeout=60)
    assert float(out) < 3
    assert err == ""
    assert driver.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


LOST = """
import sys
import time
import ray  # puts its own psutil on the path
import psutil
from autoprune.core.errors import StoppedError
from autoprune.workers import RayPool
def make(context):
    return lambda job: time.sleep(job) or bytes(300_000)  # so large that Ray keeps it in the raylet's store
if __name__ == "__main__":
    with RayPool(make, {}, workers=1) as pool:
        pool.submit(0, 0.0)
        assert pool.next().failure is None
        for process in psutil.Process().children(recursive=True):
            if process.name() == sys.argv[1]:
                process.kill()
        begun = time.monotonic()
        try:
            for key in range(1, 200):
                pool.submit(key, 0.2)
                pool.next()
        except StoppedError as error:
            print(f"{time.monotonic() - begun:.1f} s: {error}")
    sys.exit(StoppedError.exit_code)
"""


@pytest.mark.parametrize(("victim", "words"), [("gcs_server", "its head at"), ("raylet", "raylet")])
def test_a_ray_that_is_lost_raises_before_it_ends_the_process(
    tmp_path: Path, victim: str, words: str
) -> None:
    script = tmp_path / "driver.py"
    script.write_text(LOST)
    done = subprocess.run(
        [sys.executable, str(script), victim], timeout=100, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == StoppedError.exit_code, done.stdout + done.stderr
    # A raylet that loses its head writes to the same stdout.
    (told,) = [line for line in done.stdout.splitlines() if "the Ray of this machine is lost: " in line]
    assert words in told
    assert float(told.partition(" s: ")[0].split()[-1]) < 10
