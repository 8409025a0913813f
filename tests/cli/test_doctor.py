"""``rest-backend doctor``: findings, exit codes, and a report without anything private."""

from __future__ import annotations

import json
import os
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rest_backend.bundled import bundled_folder
from rest_backend.daemon.home import Home
from rest_backend.daemon.journal import Journal
from rest_backend.doctor import self_check, service
from rest_backend.doctor.archive import write_archive
from rest_backend.doctor.folders import check_home, check_models
from rest_backend.doctor.redact import Redactor
from rest_backend.doctor.service import check_daemon
from rest_backend.doctor.software import check_software
from rest_backend.errors import InputError, ResourceError
from rest_backend.wire.messages import SegmentJob
from tests.cli.conftest import Run, read_json
from tests.daemon.harness import Daemon

TOPICS = ["software", "computer", "devices", "folders", "models", "daemon", "weights", "engine"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home nobody uses yet."""
    folder = tmp_path / "state" / "rest"
    monkeypatch.setenv("REST_HOME", str(folder))
    return folder


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    """A daemon of that home, running."""
    home.parent.mkdir()
    made = Daemon(home)
    made.start()
    yield made
    made.end()


def report_of(run: Run, *options: object) -> tuple[int, dict[str, dict[str, object]]]:
    """Exit code and the checks by topic."""
    code, out, _ = run("doctor", "--json", *options)
    report = read_json(out)
    assert report["ok"] == (code == 0)
    return code, {check["name"]: check for check in report["checks"]}


def test_all_is_well_and_nothing_is_made_but_the_report(home: Path, tmp_path: Path, run: Run) -> None:
    report = tmp_path / "report.zip"
    code, out, err = run("doctor", "--zip", report)
    assert code == 0, out
    assert [line.split()[1] for line in out.splitlines()] == TOPICS  # one line a topic
    assert not home.exists() and str(report) in err
    with zipfile.ZipFile(report) as archive:
        assert archive.namelist() == ["doctor.json"]
        assert [check["name"] for check in json.loads(archive.read("doctor.json"))["checks"]] == TOPICS


def test_a_report_that_cannot_be_written(home: Path, tmp_path: Path) -> None:
    for place in (tmp_path / "no" / "folder" / "report.zip", tmp_path, Path()):
        with pytest.raises(InputError) as caught:
            write_archive(place, [], home)
        assert caught.value.code == "E_REPORT"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no files of this kind")
def test_a_device_is_not_replaced_by_a_report(home: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"  # a device needs rights
    os.mkfifo(pipe)
    with pytest.raises(InputError) as caught:
        write_archive(pipe, [], home)
    assert caught.value.code == "E_REPORT" and pipe.is_fifo()


def test_what_cannot_be_checked_is_a_problem_and_the_rest_goes_on(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(index: int | None = None) -> int:
        raise RuntimeError("the driver hangs")

    monkeypatch.setattr("torch.cuda.device_count", broken)
    monkeypatch.setattr(self_check, "LARGEST_DIFFERENCE", 0.0)  # not even rounding
    code, checks = report_of(run)
    assert code == 4 and list(checks) == TOPICS
    assert checks["devices"]["state"] == "problem" and "the driver hangs" in checks["devices"]["message"]
    assert checks["engine"]["state"] == "problem" and "cannot be trusted" in checks["engine"]["message"]
    assert checks["engine"]["facts"]["flips_beyond_margin"] == 0
    assert {"torch", "rasterio", "gdal", "timm", "pyzmq"} <= set(checks["software"]["facts"])
    assert checks["models"]["facts"]["usable"] == ["kitsap-buildings"]
    assert checks["daemon"]["facts"] == {"running": False}
    assert [name for name in TOPICS if checks[name]["state"] == "ok"] == [
        "software", "computer", "folders", "models", "daemon", "weights",
    ]  # fmt: skip


def test_a_daemon_that_runs_and_one_that_was_killed(daemon: Daemon, home: Path) -> None:
    check = check_daemon(Home(home))
    assert check.state == "ok" and check.facts["running"]
    assert (check.facts["pid"], check.facts["jobs"]) == (daemon.process.pid, {})
    daemon.kill()
    check = check_daemon(Home(home))
    assert (check.state, check.facts) == ("ok", {"running": False})


def test_a_daemon_of_another_version_is_a_warning(
    daemon: Daemon, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "__version__", "99.0")
    check = check_daemon(Home(home))
    assert check.state == "warning" and "99.0" in check.message


def test_a_daemon_that_does_not_answer_is_a_problem(
    daemon: Daemon, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = daemon.connection_path.read_text()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf_port = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        daemon.connection_path.write_text(json.dumps({**json.loads(good), "control": deaf_port}))
        monkeypatch.setattr(service, "PATIENCE", 0.3)
        try:
            with pytest.raises(ResourceError) as caught:
                check_daemon(Home(home))
        finally:
            daemon.connection_path.write_text(good)
    assert caught.value.code == "E_ENGINE_SILENT" and str(daemon.process.pid) in caught.value.message


def test_another_process_under_the_number_of_a_dead_daemon_is_left_alone(
    daemon: Daemon, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.kill()
    fields = json.loads(daemon.connection_path.read_text())
    daemon.connection_path.write_text(json.dumps({**fields, "pid": os.getpid()}))
    monkeypatch.setattr(service, "PATIENCE", 0.3)
    assert check_daemon(Home(home)).facts == {"running": False}


@pytest.mark.parametrize("content", ["", "{", '{"format": 1}'])
def test_a_damaged_connection_file_is_a_problem(home: Path, content: str) -> None:
    home.mkdir(parents=True, mode=0o700)
    (home / "connection.json").write_text(content)
    check = check_daemon(Home(home))
    assert check.state == "problem" and "damaged" in check.message


def test_the_sizes_of_the_folders(home: Path) -> None:
    place = Home(home)
    place.prepare()
    (place.spool / "job").mkdir()
    (place.spool / "job" / "classes.raw").write_bytes(bytes(3_000_000))
    check = check_home(place)
    assert check.facts["spool_bytes"] >= 3_000_000 and check.facts["inbox_bytes"] == 0
    assert "spool 3 MB" in check.message and check.facts["writable"]


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps others out by the folder's access list")
@pytest.mark.parametrize("name", ["connection.json", "keys/server.json"])
def test_keys_that_others_can_read_are_a_problem(home: Path, name: str) -> None:
    place = Home(home)
    place.prepare()
    (home / name).touch()
    (home / name).chmod(0o644)
    check = check_home(place)
    assert check.state == "problem" and str(home / name) in check.message


def test_a_home_that_is_a_file_is_a_problem(home: Path) -> None:
    home.parent.mkdir()
    home.touch()
    assert check_home(Home(home)).state == "problem"


def test_a_home_that_cannot_be_written_is_a_problem(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever runs the tests may write anywhere
    check = check_home(Home(home))
    assert check.state == "problem" and "REST_HOME" in check.message


def test_a_broken_card_is_a_warning(home: Path) -> None:
    (home / "models").mkdir(parents=True)
    (home / "models" / "broken.json").write_text("{")
    check = check_models(Home(home))
    assert check.state == "warning" and "E_CARD_INVALID" in check.message
    assert check.facts["usable"] == ["kitsap-buildings"]


def test_weights_that_were_changed_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("kitsap-buildings.json", "kitsap-buildings.safetensors"):
        content = bytearray((bundled_folder("models") / name).read_bytes())
        if name.endswith(".safetensors"):
            content[-1] ^= 1
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr("rest_backend.models.zoo.bundled_folder", lambda kind: tmp_path)
    with pytest.raises(InputError) as caught:
        self_check.check_weights()
    assert caught.value.code == "E_WEIGHTS_HASH"


SCENE = "/data/Gemeinde Musterdorf/flug 2024/kirchplatz.tif"
PRIVATE = (
    "jane_doe", "JANE_DOE", "workstation-7", "example.org", "Musterdorf", "kirchplatz", "hunter2", "Geheim",
    "umriss", "neighbours",
)  # fmt: skip
LINES = f"""2026-01-01 10:00:00 INFO rest_backend.daemon.serve: rest-backend serves
ERROR job 1: E_SCENE_MISSING: There is no scene {SCENE}.
ERROR job 1: the scene kirchplatz.tif has no CRS, outline in /home/jane_doe/umriss und so.gpkg
Traceback: File "/home/jane_doe/Geheim/run.py", line 3, in main
cannot read 'C:\\\\Users\\\\jane_doe\\\\Geheim\\\\a b.vrt' on \\\\\\\\workstation-7\\\\share\\\\Geheim.tif
fetching https://jane:hunter2@tiles.example.org/{{z}}/{{x}}?key=hunter2 failed
also /vsicurl/https://tiles.example.org/Geheim.tif and ~/Geheim/x, host workstation-7.example.org
old job, forgotten since: /mnt/all the neighbours/of mine.tif
memory 800MB of 2GB, 12/40 rows, and/or 3 m/s
"""


@pytest.fixture
def private(home: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with a job and logs full of what is nobody's business."""
    monkeypatch.setenv("USER", "jane_doe")
    monkeypatch.setenv("LOGNAME", "jane_doe")
    monkeypatch.setattr(socket, "gethostname", lambda: "workstation-7.example.org")
    place = Home(home)
    place.prepare()
    journal = Journal(place.journal)
    journal.submit(
        "key-1", SegmentJob(scene=SCENE, model="kitsap-buildings", output="/data/out/kirchplatz.tif")
    )
    journal.close()
    for name in ("daemon.log", "start.log", "worker-0.err"):
        (place.log / name).write_text(LINES)
    return place


def test_the_report_holds_nothing_private(private: Home, daemon_in: Daemon, tmp_path: Path) -> None:
    report = tmp_path / "jane_doe report.zip"
    checks = [check_software(), check_daemon(private), check_home(private), check_models(private)]
    write_archive(report, checks, private.folder)
    with zipfile.ZipFile(report) as archive:
        assert archive.testzip() is None
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert {"doctor.json", "log/daemon.log", "log/start.log", "log/worker-0.err"} <= set(texts)
    everything = "\n".join([*texts, *texts.values()])
    secrets = json.loads(daemon_in.connection_path.read_text())
    keys = [secrets[name] for name in ("client_secret", "client_public", "server_public")]
    keys += [json.loads((private.keys / "server.json").read_text())["secret"]]
    for word in (*PRIVATE, *keys, str(private.folder), str(tmp_path), str(Path.home()) + "/"):
        assert word not in everything, word
    assert "kitsap-buildings" in texts["doctor.json"]
    assert json.loads(texts["doctor.json"])["checks"][0]["name"] == "software"
    for kept in (
        "E_SCENE_MISSING",
        "rest_backend.daemon.serve",
        "memory 800MB of 2GB, 12/40 rows, and/or 3 m/s",
    ):
        assert kept in texts["log/start.log"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [report.name]


@pytest.fixture
def daemon_in(private: Home) -> Iterator[Daemon]:
    """A daemon of the private home, which has written its secrets."""
    made = Daemon(private.folder)
    made.start()
    yield made
    made.end()


def test_only_the_end_of_a_long_log_is_sent(private: Home, tmp_path: Path) -> None:
    (private.log / "daemon.log").write_text(
        "".join(f"line {number} of the log\n" for number in range(100_000))
    )
    write_archive(tmp_path / "report.zip", [], private.folder)
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        text = archive.read("log/daemon.log").decode()
    assert 200_000 < len(text) <= 256 * 1024
    assert text.startswith("line ") and text.endswith("line 99999 of the log\n")


def test_a_line_without_end_is_redacted_all_the_same(private: Home) -> None:
    text = "see /a " * 40_000  # every other sign begins a path, none has a name that ends one
    assert Redactor(private).text(text) == "see <path> " * 40_000


def test_values_are_redacted_wherever_they_stand(private: Home) -> None:
    redactor = Redactor(private)
    value = {"a": [SCENE, {"/data/x y.tif": 3}], "b": None, "c": 1.5, "d": True}
    assert redactor.value(value) == {"a": ["<path>", {"<path>": 3}], "b": None, "c": 1.5, "d": True}


@pytest.mark.parametrize(
    "text",
    [
        "12/40 rows",
        "and/or",
        "m/s",
        "E_MEMORY: 2.5 GB",
        "cuda:0",
        "tu-resnet18 + unet",
        "a / b",
        "~ 3 s",
        "10:00:00",
    ],
)
def test_what_is_no_path_stays(private: Home, text: str) -> None:
    assert Redactor(private).text(text) == text


def test_places_of_ours_stay_readable(private: Home) -> None:
    redactor = Redactor(private)
    assert redactor.text(f"see {private.log / 'daemon.log'}.") == "see <home>/log/daemon.log."
    assert redactor.text(f'File "{torch.__file__}", line 3') == 'File "<packages>/torch/__init__.py", line 3'
    assert redactor.text(f'File "{os.__file__}"') == 'File "<python>/os.py"'
    assert redactor.text(f'File "{self_check.__file__}"') == 'File "<rest_backend>/doctor/self_check.py"'
