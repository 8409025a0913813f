"""Files clients made for jobs: swept when forgotten, and never followed out of the inbox."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rest_backend.daemon.inbox import FORGOTTEN_SECONDS, Inbox, check_key
from rest_backend.errors import InputError
from rest_backend.wire.messages import Done
from tests.daemon.harness import Daemon, client, fake_job

OLD = time.time() - FORGOTTEN_SECONDS - 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "inbox"
    made.mkdir()
    return made


def test_only_old_folders_of_no_unfinished_job_are_swept(folder: Path) -> None:
    for name in ("forgotten", "running", "new"):
        (folder / name).mkdir()
        (folder / name / "file").touch()
    (folder / "stray").touch()
    for name in ("forgotten", "running", "stray"):
        os.utime(folder / name, (OLD, OLD))
    Inbox(folder).sweep({"running"})
    assert sorted(path.name for path in folder.iterdir()) == ["new", "running"]


def test_links_are_deleted_and_never_followed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (folder / "link").symlink_to(outside)
    (folder / "key").mkdir()
    (folder / "key" / "inner").symlink_to(outside)
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    os.utime(folder / "link", (OLD, OLD), follow_symlinks=False)
    inbox = Inbox(folder)
    inbox.sweep(set())
    assert not (folder / "link").is_symlink()
    inbox.remove("key")
    inbox.remove("dangling")
    inbox.remove("never there")
    assert list(folder.iterdir()) == []
    assert (outside / "precious").exists()


@pytest.mark.parametrize("key", ["", ".", "..", "...", "other."])
def test_keys_that_name_other_folders_are_refused(folder: Path, key: str) -> None:
    with pytest.raises(InputError) as refused:
        check_key(key)
    assert refused.value.code == "E_KEY"
    Inbox(folder).remove(key)  # an older engine took such keys
    assert folder.exists() and folder.parent.exists()


def test_the_daemon_sweeps_at_its_start(daemon: Daemon, tmp_path: Path) -> None:
    forgotten = daemon.home / "inbox" / "forgotten"
    forgotten.mkdir(parents=True)
    os.utime(forgotten, (OLD, OLD))
    with client(daemon.start()) as served:
        served.submit(fake_job(tmp_path))
        served.expect(Done)
    assert not forgotten.exists()
