"""The scripts that a newcomer meets first: make targets and the missing system packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.sources import REPOSITORY

TARGETS = {"setup", "plugin", "demo", "test", "lint", "bench", "package", "dev-install", "clean"}
SYSTEM_PACKAGES = REPOSITORY / "tools" / "install_system_packages.sh"


def test_help_names_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^  make (\S+)", done.stdout, re.MULTILINE)) >= TARGETS


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^(exec )?make test\b", script.read_text(), re.MULTILINE)
    assert "make test" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_no_pin_has_a_local_version() -> None:
    """PyPI has no ``torch==X+cpu``: such a pin would install on the machine that wrote it only."""
    for path in (REPOSITORY / "requirements").glob("*.txt"):
        pins = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert pins, path
        assert [pin for pin in pins if not re.match(r"[\w-]+==[\d.]+(;|$)", pin)] == []


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Folder of commands that stand for a Debian on which this user is not root."""
    (tmp_path / "run.log").touch()
    for name, script in {
        "dpkg-query": 'case "${@: -1}" in present) echo installed ;; *) exit 1 ;; esac',
        "apt-get": f'echo "$@" >>"{tmp_path}/run.log"',
        "id": "echo 1000",
        "sudo": "exit 1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def _install(system: Path, *packages: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{system}:{os.environ['PATH']}"}
    command = ["bash", str(SYSTEM_PACKAGES), *packages]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_nothing_is_said_or_done_when_all_packages_are_there(system: Path) -> None:
    done = _install(system, "present")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (system / "run.log").read_text() == ""


def test_without_root_the_exact_command_is_printed(system: Path) -> None:
    done = _install(system, "present", "missing-one", "missing-two")
    assert done.returncode == 0
    assert "sudo apt-get install -y --no-install-recommends missing-one missing-two\n" in done.stderr
    assert (system / "run.log").read_text() == ""


def test_root_installs_only_what_is_missing(system: Path) -> None:
    (system / "id").write_text("#!/bin/bash\necho 0\n")
    assert _install(system, "present", "missing-one").returncode == 0
    ran = (system / "run.log").read_text().splitlines()
    assert ran == ["update -qq", "install -y --no-install-recommends missing-one -qq"]


def test_a_failing_apt_ends_the_setup(system: Path) -> None:
    (system / "id").write_text("#!/bin/bash\necho 0\n")
    (system / "apt-get").write_text("#!/bin/bash\necho 'E: no such package' >&2\nexit 100\n")
    done = _install(system, "missing-one")
    assert done.returncode == 1
    assert "E: no such package" in done.stderr
    assert "could not install: missing-one" in done.stderr


@pytest.mark.parametrize(
    ("body", "accepted", "code", "said"),
    [
        ("assert True", True, 0, "QGIS: NOT RUN"),
        ("assert True", False, 1, "QGIS: NOT RUN, so this is no pass"),
        ("assert False", True, 1, "backend and client: FAILED"),
    ],
)
def test_a_suite_without_qgis_passes_only_on_purpose(
    tmp_path: Path, body: str, accepted: bool, code: int, said: str
) -> None:
    done = _run_suite(tmp_path, body, {"REST_WITHOUT_QGIS": "1"} if accepted else {})
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout


def test_the_suite_keeps_out_of_the_folders_a_desktop_names(tmp_path: Path) -> None:
    names = ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"]
    desktop = {name: str(tmp_path / "desktop") for name in names}
    body = f"import os; assert {str(tmp_path / 'desktop')!r} not in [os.environ[name] for name in {names}]"
    done = _run_suite(tmp_path, body, {"REST_WITHOUT_QGIS": "1", **desktop})
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "desktop").exists()


def _run_suite(folder: Path, body: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run tools/run_tests.sh over one test in a checkout without QGIS."""
    (folder / "tools").mkdir()
    (folder / "tests").mkdir()
    (folder / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    (folder / "tests" / "test_one.py").write_text(f"def test_one():\n    {body}\n")
    script = shutil.copy(REPOSITORY / "tools" / "run_tests.sh", folder / "tools")
    environment = {name: value for name, value in os.environ.items() if name != "REST_WITHOUT_QGIS"}
    environment.update(variables)
    return subprocess.run(["bash", script], env=environment, capture_output=True, text=True, timeout=120)
