"""The daemon as clients see it: handshake, jobs, events, rows under credit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zmq

from rest_backend.bundled import bundled_folder
from rest_backend.daemon import security
from rest_backend.models.zoo import list_models
from rest_backend.wire import frames
from rest_backend.wire.messages import (
    CREDIT_LIMIT,
    HEADER_LIMIT,
    PAYLOAD_LIMIT,
    Attach,
    Cancel,
    Credit,
    DaemonStatus,
    Done,
    Error,
    Failed,
    Goodbye,
    Hello,
    JobStatus,
    ListModels,
    Models,
    Progress,
    Rows,
    SegmentJob,
    Status,
    Submit,
    Submitted,
    Watch,
    Welcome,
)
from tests.daemon.fake_method import class_rows
from tests.daemon.harness import Client, Daemon, assemble, client, fake_job


def test_handshake(daemon: Daemon) -> None:
    connection = daemon.start()
    with client(connection) as one, client(connection) as other:
        assert one.welcome.protocol == 1
        assert one.welcome.boot == other.welcome.boot == connection.boot
        assert one.welcome.version == connection.version


def test_another_protocol_is_told_which_are_spoken(daemon: Daemon) -> None:
    with client(daemon.start(), hello=False) as stranger:
        for protocols in ((2, 5), (0, 0)):
            goodbye = stranger.ask(Hello(protocols=protocols, client="t", version="9"), Goodbye)
            assert (goodbye.code, goodbye.supported) == ("E_PROTOCOL", (1, 1))
        refused = stranger.ask(Status(), Error)
        assert refused.code == "E_HELLO"
        assert stranger.ask(Hello(protocols=(0, 7), client="t", version="9"), Welcome).protocol == 1


def test_a_job_runs_and_its_rows_are_the_scene(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, width=50, height=83, stripe=9))
    done = served.expect(Done)
    assert (done.job, done.seq, done.output) == (job, 10, str(tmp_path / "out.tif"))
    assert done.summary["valid_pixels"] == 50 * 83
    assert Path(done.output).exists()
    blocks = list(served.rows(job, done.seq))
    assert assemble(blocks, 50, 83) == class_rows((0, 0, 50, 83), 0, 83, noise=False).tobytes()
    assert {rows.codec for rows, _ in blocks} == {"zlib"}
    status = served.ask(Status(job=job), JobStatus)
    assert (status.state, status.next_seq, status.rows_done, status.rows) == ("done", 10, 83, 83)
    assert (status.window, status.attempt, status.summary) == ((0, 0, 50, 83), 0, done.summary)


def test_large_noise_travels_raw_in_blocks_of_one_payload(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, width=3000, height=800, stripe=400, noise=1))
    done = served.expect(Done)
    blocks = list(served.rows(job, done.seq, credit=4))
    assert {rows.codec for rows, _ in blocks} == {"raw"}
    assert max(len(values) for _, values in blocks) <= PAYLOAD_LIMIT
    assert len(blocks) == 4  # 349 + 51 rows, twice
    assert assemble(blocks, 3000, 800) == class_rows((0, 0, 3000, 800), 0, 800, noise=True).tobytes()


def test_window_is_relative_to_the_scene(served: Client, tmp_path: Path) -> None:
    window = (11, 200, 30, 45)
    fake = fake_job(tmp_path)
    job = served.submit(
        SegmentJob(
            scene=fake.scene, model=fake.model, output=fake.output, window=window, memory_bytes=5 * 10**8
        )
    )
    done = served.expect(Done)
    assert done.summary["memory_bytes"] == 5 * 10**8
    assert done.summary["device"] == "cpu"
    first, values = next(served.rows(job, done.seq))
    assert first.window == (11, 200, 30, 10)
    assert values == class_rows(window, 200, 210, noise=False).tobytes()


def test_no_memory_limit_leaves_it_to_the_operation(served: Client, tmp_path: Path) -> None:
    served.submit(fake_job(tmp_path))
    assert served.expect(Done).summary["memory_bytes"] is None


def test_progress_tells_stages_and_notes(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path))
    served.expect(Done)
    events = [message for message in served.seen if isinstance(message, Progress)]
    stages = [event.stage for event in events]
    assert stages == sorted(stages, key=["queued", "loading", "sweep", "writing"].index)
    assert {"loading", "sweep", "writing"} <= set(stages)
    assert [event.note for event in events if event.note] == ["no CRS"]
    assert {event.job for event in events} == {job}
    assert all(event.request == "" for event in events)


def test_no_row_beyond_the_credit(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, height=100))
    served.expect(Done)
    served.attach(job, credit=0)
    assert served.data_message(0.4) is None
    for seq in range(3):
        served.credit(job, 1)
        rows, _ = served.data_message()
        assert rows.seq == seq
        assert served.data_message(0.2) is None
    served.credit(job, 2)
    assert [served.data_message()[0].seq for _ in range(2)] == [3, 4]
    assert served.data_message(0.3) is None


def test_rows_come_while_the_job_runs(served: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = served.submit(fake_job(tmp_path, height=100, gate=gate))
    blocks = list(served.rows(job, 5))
    assert served.ask(Status(job=job), JobStatus).state == "running"
    assert not (tmp_path / "out.tif").exists()
    gate.touch()
    done = served.expect(Done)
    blocks += list(served.rows(job, done.seq, seq=5))
    assert assemble(blocks, 64, 100) == class_rows((0, 0, 64, 100), 0, 100, noise=False).tobytes()


def test_credit_is_bounded_and_needs_an_attachment(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, height=400, stripe=2))
    assert served.expect(Done).seq == 200
    served.credit(job, 1)
    refused, _ = served.data_message()
    assert (type(refused), refused.code) == (Error, "E_NOT_ATTACHED")
    served.attach(job, CREDIT_LIMIT, seq=200)  # nothing to send yet: the credit must not add up
    for _ in range(5):
        served.credit(job, CREDIT_LIMIT)
    assert served.data_message(0.3) is None
    served.attach(job, CREDIT_LIMIT)
    received = 0
    while served.data_message(0.4) is not None:
        received += 1
    assert received == CREDIT_LIMIT


def test_attaching_again_replays_from_any_row(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, height=50))
    done = served.expect(Done)
    first = list(served.rows(job, done.seq))
    assert list(served.rows(job, done.seq, seq=2)) == first[2:]
    assert list(served.rows(job, done.seq)) == first


def test_same_key_gives_the_same_job_and_another_body_a_conflict(served: Client, tmp_path: Path) -> None:
    job = fake_job(tmp_path)
    first = served.ask(Submit(key="k", job=job), Submitted)
    served.expect(Done)
    again = served.ask(Submit(key="k", job=job), Submitted)
    assert (again.job, again.key, again.state) == (first.job, "k", "done")
    assert served.expect(Done).job == first.job  # whoever asks late hears the end too
    conflict = served.ask(Submit(key="k", job=fake_job(tmp_path, name="b")), Error)
    assert conflict.code == "E_CONFLICT"
    assert (tmp_path / "out.attempts").stat().st_size == 1
    assert len(served.ask(Status(), DaemonStatus).jobs) == 1


def test_two_clients_each_get_their_own_and_what_they_watch(daemon: Daemon, tmp_path: Path) -> None:
    connection = daemon.start()
    gate = tmp_path / "gate"
    with client(connection) as one, client(connection) as other:
        slow = one.submit(fake_job(tmp_path, "slow", gate=gate), key="slow")
        quick = other.submit(fake_job(tmp_path, "quick"), key="quick")
        assert other.ask(Watch(job=slow), JobStatus).state in ("queued", "running")
        gate.touch()
        assert one.expect(Done).job == slow
        assert {other.expect(Done).job, other.expect(Done).job} == {slow, quick}
        assert one.control.poll(200) == 0
        mine, theirs = list(one.rows(slow, 10)), list(other.rows(slow, 10))
        assert mine == theirs
        assert [message for message in one.seen if getattr(message, "job", slow) != slow] == []


def test_jobs_are_started_in_order_one_a_worker(served: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    jobs = [served.submit(fake_job(tmp_path, f"o{n}", gate=gate), key=f"k{n}") for n in range(3)]
    served.expect(Progress, lambda event: event.stage == "sweep" and event.job == jobs[0])
    states = {job.job: job.state for job in served.ask(Status(), DaemonStatus).jobs}
    assert [states[job] for job in jobs] == ["running", "queued", "queued"]
    gate.touch()
    assert [served.expect(Done).job for _ in jobs] == jobs


def test_errors_of_the_operation_keep_their_code(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, fault="input"))
    failed = served.expect(Failed)
    assert (failed.job, failed.code) == (job, "E_SCENE_MISSING")
    assert "scene.tif" in failed.message
    assert served.ask(Status(job=job), JobStatus).state == "failed"
    served.attach(job, 1)
    refused, _ = served.data_message()
    assert (refused.code, refused.job) == ("E_SCENE_MISSING", job)


def test_a_mistake_is_told_with_its_log_and_leaves_nothing(
    served: Client, daemon: Daemon, tmp_path: Path
) -> None:
    job = served.submit(fake_job(tmp_path, fault="raise"))
    failed = served.expect(Failed)
    assert failed.code == "E_INTERNAL"
    log = daemon.home / "log" / "worker-0.log"
    assert str(log) in failed.message
    assert "ValueError: a mistake" in log.read_text()
    assert not (daemon.home / "spool" / job).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.attempts"]
    assert served.ask(Submit(key="n", job=fake_job(tmp_path, "next")), Submitted)
    assert served.expect(Done)  # the worker lives


def test_unknown_jobs_are_never_done(served: Client) -> None:
    for message in (Status(job="nope"), Watch(job="nope"), Cancel(job="nope")):
        assert served.ask(message, Error).code == "E_UNKNOWN_JOB"
    for message in (Attach(job="nope"), Credit(job="nope", credit=1)):
        served.data.send_multipart(frames.encode(message))
        assert served.data_message()[0].code == "E_UNKNOWN_JOB"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scene": "relative.tif"}, "E_PATH"),
        ({"output": ""}, "E_PATH"),
        ({"output": "/a\nb.tif"}, "E_PATH"),
        ({"scene": "/a\0b"}, "E_PATH"),
        ({"scene": "/" + "ä" * 4000}, "E_PATH"),
        ({"window": (0, 0, 0, 5)}, "E_WINDOW"),
        ({"device": "gpu"}, "E_DEVICE"),
    ],
)
def test_jobs_that_make_no_sense_are_refused(daemon: Daemon, tmp_path: Path, change: dict, code: str) -> None:
    fields = {"scene": "/scene.tif", "model": "m", "output": str(tmp_path / "o.tif"), **change}
    with client(daemon.start()) as served:
        assert served.ask(Submit(key="k", job=SegmentJob(**fields)), Error).code == code
        assert served.ask(Submit(key="", job=SegmentJob(**fields)), Error).code == "E_KEY"
        assert served.ask(Status(), DaemonStatus).jobs == []


def test_a_device_that_is_not_there(served: Client, tmp_path: Path) -> None:
    served.submit(fake_job(tmp_path, device="cuda:3"))
    failed = served.expect(Failed)
    assert failed.code == "E_DEVICE"
    assert "cuda:3" in failed.message and "cpu" in failed.message


def test_one_worker_a_device(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", {"FAKE_DEVICES": "cuda:0,cuda:1"})
    gate = tmp_path / "gate"
    try:
        with client(daemon.start()) as served:
            jobs = [
                served.submit(fake_job(tmp_path, f"o{n}", device, gate=gate), key=f"k{n}")
                for n, device in enumerate(("auto", "auto", "cuda:1"))
            ]
            for job in jobs[:2]:
                served.expect(Progress, lambda event, job=job: event.stage == "sweep" and event.job == job)
            status = served.ask(Status(), DaemonStatus)
            assert [(device.id, device.worker) for device in status.devices] == [
                ("cuda:0", "busy"),
                ("cuda:1", "busy"),
            ]
            assert len(daemon.workers()) == 2
            gate.touch()
            summaries = {done.job: done.summary["device"] for done in (served.expect(Done) for _ in jobs)}
            assert {summaries[job] for job in jobs[:2]} == {"cuda:0", "cuda:1"}
            assert summaries[jobs[2]] == "cuda:1"
    finally:
        daemon.end()


def test_a_device_whose_worker_does_not_start_fails_its_jobs_only(tmp_path: Path) -> None:
    start = f"once:{tmp_path / 'started'}"
    daemon = Daemon(tmp_path / "home", {"FAKE_DEVICES": "cpu,cuda:0", "FAKE_START": start})
    try:
        with client(daemon.start()) as served:
            waiting = served.submit(fake_job(tmp_path, "b", device="cuda:0"), key="b")
            failed = served.expect(Failed)
            assert (failed.job, failed.code) == (waiting, "E_WORKER_START")
            assert "cuda:0" in failed.message and "worker-1.err" in failed.message
            healthy = served.submit(fake_job(tmp_path, "a"), key="a")
            assert served.expect(Done).job == healthy
    finally:
        daemon.end()


def test_credit_that_comes_after_the_last_row_is_no_fault(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, height=30))
    done = served.expect(Done)
    assert len(list(served.rows(job, done.seq))) == 3
    for _ in range(3):
        served.credit(job)
    assert served.data_message(0.3) is None


def test_messages_on_the_wrong_socket(served: Client, tmp_path: Path) -> None:
    assert served.ask(Attach(job="j"), Error).code == "E_WRONG_SOCKET"
    served.data.send_multipart(frames.encode(Submit(key="k", job=fake_job(tmp_path))))
    assert served.data_message()[0].code == "E_WRONG_SOCKET"


def test_models_are_listed_as_the_plugin_shows_them(served: Client, daemon: Daemon) -> None:
    answer = served.ask(ListModels(), Models)
    (model,) = answer.models
    assert answer.left_out == 0
    assert (model["id"], model["bundled"]) == ("kitsap-buildings", True)
    assert model["bands"] == ["red", "green", "blue"]
    assert [entry["name"] for entry in model["classes"]] == ["background", "building"]
    scored = {"id", "iou", "precision", "recall", "pixels"}
    assert [set(entry) for entry in model["score"]["classes"]] == [scored] * 2
    assert model["score"]["window"] == [1280, 1280, 1280, 1280]  # the demo outlines it
    assert not {"architecture", "training", "confusion"} & (model.keys() | model["score"].keys())


def test_more_models_than_one_answer_holds(served: Client, daemon: Daemon) -> None:
    """100 models as large as the bundled one, and a monster that must not hide those after it."""
    folder = daemon.home / "models"
    folder.mkdir()
    card = json.loads((bundled_folder("models") / "kitsap-buildings.json").read_text())
    for number in range(100):
        copy = {**card, "id": f"model-{number:03}"}
        if number == 1:
            copy["bands"] = [{"name": f"{band:0200}", "role": "x"} for band in range(1000)]
            copy["normalisation"] = {"method": "scene"}
        (folder / f"{copy['id']}.json").write_text(json.dumps(copy))
        (folder / f"{copy['id']}.safetensors").touch()
    installed = [model.id for model in list_models(daemon.home)]
    assert len(installed) == 101
    answer = served.ask(ListModels(), Models)
    listed = [model["id"] for model in answer.models]
    assert len(listed) + answer.left_out == 101
    assert len(listed) >= 40
    installed.remove("model-001")
    assert listed == installed[: len(listed)]
    assert len(frames.encode(answer)[1]) <= HEADER_LIMIT


def test_strangers_hear_nothing_from_the_real_daemon(daemon: Daemon) -> None:
    connection = daemon.start()
    server = security.KeyPair(connection.server_public, "")
    own = security.KeyPair(connection.client_public, connection.client_secret)
    for address in (connection.control, connection.data):
        assert security.failed_attacks(address, server, own) == []
    context: zmq.Context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
    stranger.curve_serverkey = connection.server_public.encode()
    stranger.connect(connection.control)
    stranger.send_multipart(frames.encode(Hello(protocols=(1, 1), client="x", version="0")))
    assert not stranger.poll(500)
    context.destroy(linger=0)
    with client(connection) as served:
        assert served.ask(Status(), DaemonStatus).dropped == 0


def test_a_damaged_spool_is_an_error_not_rows(served: Client, daemon: Daemon, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, noise=1))
    served.expect(Done)
    rows = daemon.home / "spool" / job / "classes.raw"
    content = bytearray(rows.read_bytes())
    content[700] ^= 1  # row 10: block 1
    rows.write_bytes(content)
    served.attach(job, 5)
    first, _ = served.data_message()
    assert (type(first), first.seq) == (Rows, 0)
    refused, _ = served.data_message()
    assert (type(refused), refused.code, refused.job) == (Error, "E_SPOOL", job)
    assert served.data_message(0.2) is None
