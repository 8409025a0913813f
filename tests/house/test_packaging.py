"""What users get: the plugin folder, its zip, the backend's wheel, the link in a QGIS profile."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import assemble_plugin
import install_plugin
import package_plugin
import pytest

import rest_backend
from tests.house.sources import REPOSITORY

WHEEL_LARGEST_BYTES = 25_000_000


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin") / "rest_qgis"
    assert assemble_plugin.assemble(folder)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY / "backend", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_plugin_folder_is_complete(plugin: Path) -> None:
    files = _files(plugin)
    assert {"__init__.py", "plugin.py", "metadata.txt", "LICENSE", "icons/rest.png"} <= files
    assert {"client/__init__.py", "client/messages.schema.json", "processing/provider.py"} <= files
    icons = {path.name for path in (REPOSITORY / "resources" / "icons").iterdir()}
    assert {f"icons/{name}" for name in icons} <= files
    assert (plugin / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


def test_plugin_folder_holds_no_bytecode_and_no_tests(plugin: Path) -> None:
    unwanted = ("__pycache__", ".pyc", "test")
    assert [name for name in _files(plugin) if any(part in name for part in unwanted)] == []


def test_assembling_again_changes_nothing_and_removes_what_is_gone(plugin: Path) -> None:
    before = plugin.stat().st_ino
    assert not assemble_plugin.assemble(plugin)
    assert plugin.stat().st_ino == before
    (plugin / "removed_module.py").write_text("")
    (plugin / "plugin.py").write_text("changed")
    assert assemble_plugin.assemble(plugin)
    assert _files(plugin) == set(assemble_plugin.plugin_files())
    assert (plugin / "plugin.py").read_bytes() == (REPOSITORY / "rest_qgis" / "plugin.py").read_bytes()
    assert [path.name for path in plugin.parent.iterdir()] == ["rest_qgis"]


def test_zip_keeps_the_rules_of_the_plugin_site(plugin: Path, tmp_path: Path) -> None:
    made = package_plugin.package(plugin, tmp_path)
    assert made.name == f"rest_qgis-{rest_backend.__version__}.zip"
    assert [path.name for path in tmp_path.iterdir()] == [made.name]
    assert package_plugin.broken_rules(made) == []
    with zipfile.ZipFile(made) as archive:
        names = {name.removeprefix("rest_qgis/") for name in archive.namelist()}
        assert archive.testzip() is None
    assert names == set(assemble_plugin.plugin_files())
    first = made.read_bytes()
    assert package_plugin.package(plugin, tmp_path).read_bytes() == first


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("rest_qgis/__pycache__/a.cpython-311.pyc", "may not be shipped"),
        ("rest_qgis/zmq/_zmq.so", "may not be shipped"),
        ("rest_qgis/.git/config", "may not be shipped"),
        ("__MACOSX/a", "one top folder"),
        ("second/a.py", "one top folder"),
    ],
)
def test_a_bad_zip_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for good in ("__init__.py", "metadata.txt", "LICENSE"):
            archive.writestr(f"rest_qgis/{good}", "x")
        archive.writestr(name, "x")
    assert any(problem in sentence for sentence in package_plugin.broken_rules(path))


def test_zip_and_backend_must_have_one_version(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_plugin, "backend_version", lambda: "9.9.9")
    with pytest.raises(SystemExit, match=r"9\.9\.9"):
        package_plugin.package(plugin, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wheel_brings_the_bundled_model_and_the_scene(wheel: Path) -> None:
    assert wheel.name == f"rest_backend-{rest_backend.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < WHEEL_LARGEST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    shipped = {name.removeprefix("rest_backend/resources/") for name in sizes if "/resources/" in name}
    assert "models/kitsap-buildings.json" in shipped
    assert 0 < sizes["rest_backend/resources/models/kitsap-buildings.safetensors"] <= 12_000_000
    assert 0 < sizes["rest_backend/resources/scenes/kitsap.tif"] <= 6_000_000
    assert "rest_backend/cli.py" in sizes
    assert "NOTICE.md" in {name.rpartition("/")[2] for name in shipped}
    assert not any(name.endswith(".pyc") or name.startswith("tests/") for name in sizes)


def test_wheel_brings_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("rest_backend/LICENSE") == (REPOSITORY / "LICENSE").read_bytes()


def test_wheel_declares_ranges_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"rest_backend-{rest_backend.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        commands = archive.read(f"{info}/entry_points.txt").decode()
    assert "License-Expression: GPL-3.0-or-later" in metadata
    assert "Requires-Python: <3.15,>=3.10" in metadata
    assert "Requires-Dist: torch>=2.11" in metadata
    assert "rest-backend = rest_backend.cli:main" in commands


@pytest.mark.skipif(sys.platform == "win32", reason="copied there, not linked")
def test_dev_install_links_the_plugin_in_place_of_an_older_copy(tmp_path: Path) -> None:
    old = tmp_path / "python" / "plugins" / "rest_qgis"
    old.mkdir(parents=True)
    (old / "old.py").write_text("")
    assert install_plugin.install(tmp_path) == old
    assert old.is_symlink()
    assert old.readlink() == assemble_plugin.PLUGIN
    assert install_plugin.install(tmp_path).readlink() == assemble_plugin.PLUGIN


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of Linux")
def test_dev_install_takes_the_profile_that_qgis_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert install_plugin.profile_folder() == tmp_path / "QGIS" / "QGIS3" / "profiles" / "default"
    profiles = tmp_path / "QGIS" / "QGIS4" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "profiles.ini").write_text("[core]\ndefaultProfile=field work\n")
    assert install_plugin.profile_folder() == profiles / "field work"


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of Linux")
def test_dev_install_never_replaces_an_installed_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    environment = tmp_path / "checkout" / ".venv"
    place = install_plugin.backend_folder()
    assert str(place) in install_plugin.point_to_backend(environment)
    assert place.readlink() == environment
    place.unlink()
    place.mkdir()
    assert "stays in use" in install_plugin.point_to_backend(environment)
    assert not place.is_symlink()
