"""Coming back to jobs of the real daemon: from a new process, after kills, with all that was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rest_backend", reason="the backend is not in QGIS's Python")

from rest_qgis.client import ClientError, Engine, JobRequest, new_key
from rest_qgis.client.connection import read_connection
from tests.client.conftest import Recorder, ask, shut_down, wait_until
from tests.client.real_engine import (
    COMMAND,
    MODEL,
    PATIENCE,
    check_product,
    check_result,
    make_scene,
    needs_engine,
    request_for,
    running,
)

pytestmark = needs_engine
ROOT = Path(__file__).resolve().parents[2]

# An earlier session: hands a job in under a key, and is killed in the middle of its rows.
EARLIER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from rest_qgis.client import Engine, JobListener, JobRequest

class Dying(JobListener):
    def rows(self, job, rows):
        if rows.seq >= 3:
            os.kill(os.getpid(), signal.SIGKILL)

home, command, scene, model, output, confidence, key, abandon = sys.argv[2:]
engine = Engine(home, command)
request = JobRequest(
    scene, model, output, device="cpu", title="Roofs", confidence=confidence, abandon_seconds=int(abandon)
)
engine.wait(engine.segment(request, Dying(), key=key))
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """One that takes long enough to be interrupted."""
    return make_scene(tmp_path_factory.mktemp("scenes") / "tall.tif", 256, 3072)


@pytest.fixture(scope="module")
def daemon_home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("rest-home")
    yield home
    shut_down(home)


@pytest.fixture
def engine(daemon_home, monkeypatch):
    monkeypatch.delenv("REST_BACKEND", raising=False)
    with Engine(daemon_home, COMMAND) as made:
        yield made


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_client_and_daemon_killed_a_new_session_comes_back_to_everything(
    engine, daemon_home, scene, tmp_path
):
    output, confidence, key = tmp_path / "classes.tif", tmp_path / "confidence.tif", new_key()
    killed_session(daemon_home, COMMAND, scene, MODEL, output, confidence, key, 0)
    os.kill(read_connection(daemon_home).pid, signal.SIGKILL)
    assert not output.exists()

    listener = Recorder()
    job = engine.resume(key, listener)
    done = engine.wait(job, PATIENCE)
    assert done is not None and Path(done.output) == output
    assert (job.request.title, job.request.confidence) == ("Roofs", str(confidence))
    assert job.key == key and listener.events[0] == "submitted" and listener.events[-1] == "done"
    assert {block.product for block in listener.blocks} == {"classes", "confidence"}
    check_result(listener, output, (256, 3072))
    check_product(listener, "confidence", confidence, 1, (256, 3072))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_the_job_of_a_killed_qgis_process_is_cancelled(engine, daemon_home, tmp_path):
    """What ``rest:segment`` of qgis_process does: nobody comes back, so the job minds being alone."""
    scene = make_scene(tmp_path / "taller.tif", 256, 24576)  # its job takes far longer than it may be alone
    output, confidence, key = tmp_path / "classes.tif", tmp_path / "confidence.tif", new_key()
    killed_session(daemon_home, COMMAND, scene, MODEL, output, confidence, key, 1)

    def ended() -> dict | None:
        status, error = ask(engine.status)  # who only looks does not watch
        assert error is None
        job = next(job for job in status["jobs"] if job["key"] == key)
        return job if job["state"] not in ("queued", "running") else None

    wait_until(ended, PATIENCE)
    assert (ended()["state"], ended()["code"]) == ("cancelled", "E_CANCELLED")
    assert "no client watched it" in ended()["message"]
    assert list(tmp_path.iterdir()) == [scene]


def test_a_finished_job_is_replayed_and_then_deleted(engine, daemon_home, tmp_path):
    small = make_scene(tmp_path / "small.tif", 320, 448)
    output, key = tmp_path / "classes.tif", new_key()
    (engine.inbox(key) / "note.txt").write_text("of the job's own")
    with Engine(daemon_home, COMMAND) as earlier:
        assert earlier.wait(earlier.segment(request_for(small, output), key=key), PATIENCE)
    listener = Recorder()
    job = engine.resume(key, listener)
    assert engine.wait(job, PATIENCE) is not None
    check_result(listener, output, (320, 448))
    wait_until(lambda: not (daemon_home / "inbox" / key).exists())

    errors: list[ClientError | None] = []
    engine.delete(job.id, errors.append)
    wait_until(lambda: bool(errors), PATIENCE)
    assert errors == [None] and output.exists()
    assert not (daemon_home / "spool" / job.id).exists()
    with pytest.raises(ClientError) as raised:
        engine.wait(engine.resume(job.id), PATIENCE)
    assert raised.value.code == "E_UNKNOWN_JOB"


def test_a_job_of_the_list_is_cancelled_by_its_id(engine, daemon_home, scene, tmp_path):
    with Engine(daemon_home, COMMAND) as other:
        listener = Recorder()
        job = other.segment(request_for(scene, tmp_path / "classes.tif"), listener)
        wait_until(lambda: running(listener), PATIENCE)
        status, error = ask(lambda callback: engine.cancel(job.id, callback))
        assert error is None and status["job"] == job.id
        with pytest.raises(ClientError) as raised:
            other.wait(job, PATIENCE)
    assert raised.value.code == "E_CANCELLED"
    assert list(tmp_path.iterdir()) == []


def test_a_plan_while_a_job_runs(engine, scene, tmp_path):
    """The planner is a process of its own; the output need not be known yet."""
    output = tmp_path / "classes.tif"
    listener = Recorder()
    job = engine.segment(request_for(scene, output), listener)
    wait_until(lambda: running(listener), PATIENCE)
    planned = JobRequest(str(scene), MODEL, "", window=(0, 0, 256, 512))
    plans: list[tuple[dict | None, ClientError | None]] = []
    engine.plan(planned, lambda plan, error: plans.append((plan, error)))
    wait_until(lambda: bool(plans), PATIENCE)
    plan, error = plans[0]
    assert error is None and plan["fits"], plans
    assert (plan["width"], plan["height"], plan["window"]) == (256, 3072, [0, 0, 256, 512])
    assert engine.wait(job, PATIENCE) is not None
    check_result(listener, output, (256, 3072))


def killed_session(*arguments: object) -> None:
    """A process of its own that is killed in the middle of its job's rows."""
    earlier = subprocess.run(
        [sys.executable, "-c", EARLIER, str(ROOT), *map(str, arguments)],
        env={name: value for name, value in os.environ.items() if name != "REST_BACKEND"},
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    assert earlier.returncode == -signal.SIGKILL, earlier.stderr.decode()
