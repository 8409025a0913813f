"""House rules that no linter knows: forbidden calls, sizes of files, syntax levels."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house.sources import BACKEND, PLUGIN, imports, name_of, python_files, tree

LONGEST_FILE = 500  # lines
# The outermost loops, where any error has to become a log entry and a message instead of an end.
BOUNDARIES = {
    "backend/rest_backend/daemon/worker.py",  # a job's code, reported to the broker
    "backend/rest_backend/daemon/broker.py",  # one request or one worker must not end the daemon
    "backend/rest_backend/daemon/serve.py",  # the log must tell why the daemon ended
    "rest_qgis/client/callbacks.py",  # the caller's callbacks and listeners, on the client's thread
}
SHIPPED = [(path, top) for top in (BACKEND, PLUGIN) for path in sorted(top.rglob("*.py"))]
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "yaml.load", "numpy.load", "np.load", "os.system"}


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_files_stay_small_and_named_for_their_job(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    assert path.stem not in {"utils", "util", "helpers", "misc", "common", "code"}


@pytest.mark.parametrize(("path", "top"), SHIPPED, ids=[name_of(path) for path, _ in SHIPPED])
def test_nothing_runs_code_from_data(path: Path, top: Path) -> None:
    assert [found for found in imports(path, top) if found.root in UNSAFE_MODULES] == []
    assert _unsafe_calls(tree(path)) == []


@pytest.mark.parametrize(("path", "top"), SHIPPED, ids=[name_of(path) for path, _ in SHIPPED])
def test_broad_handlers_only_at_boundaries(path: Path, top: Path) -> None:
    if name_of(path) not in BOUNDARIES:
        assert _broad_handlers(tree(path)) == []


@pytest.mark.parametrize(("path", "top"), SHIPPED, ids=[name_of(path) for path, _ in SHIPPED])
def test_syntax_level(path: Path, top: Path) -> None:
    """The oldest Python each side runs on: 3.10 for the backend, 3.9 in QGIS 3.22 (older in no case)."""
    level = (3, 10) if top == BACKEND else (3, 9)
    ast.parse(path.read_text(encoding="utf-8"), feature_version=level)


def test_the_rules_catch_what_they_name() -> None:
    source = ast.parse(
        "eval('1')\nmodel.eval()\ntorch.load(path)\n"
        "try:\n    pass\nexcept Exception:\n    pass\n"
        "try:\n    pass\nexcept BaseException:\n    clean()\n    raise\n"
        "try:\n    pass\nexcept (OSError, Exception):\n    pass\n"
        "with contextlib.suppress(Exception):\n    pass\n"
        "try:\n    pass\nexcept:\n    pass\n"
    )
    assert _unsafe_calls(source) == ["eval in line 1", "torch.load in line 3"]
    assert _broad_handlers(source) == [6, 15, 17, 21]


def _unsafe_calls(module: ast.Module) -> list[str]:
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
    named = [(ast.unparse(call.func), call.lineno) for call in calls]
    return [f"{name} in line {line}" for name, line in named if name in UNSAFE_CALLS]


def _broad_handlers(module: ast.Module) -> list[int]:
    """Lines that catch everything and do not raise it again."""
    lines = []
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler):
            last = node.body[-1]
            if _is_broad(node.type) and not (isinstance(last, ast.Raise) and last.exc is None):
                lines.append(node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            lines.extend(node.lineno for argument in node.args if _is_broad(argument))
    return sorted(lines)


def _is_broad(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(element) for element in caught.elts)
    return ast.unparse(caught) in {"Exception", "BaseException"}
