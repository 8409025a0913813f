"""The protocol page is the messages, every field is explained, and a stale page is noticed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from rest_backend.wire import document, messages


def test_the_page_is_up_to_date() -> None:
    assert document.main(["--check"]) == 0


def test_a_stale_page_fails_the_check_and_writing_mends_it(tmp_path: Path) -> None:
    page = tmp_path / "protocol.md"
    page.write_text(document.page().replace("hello", "hallo", 1), encoding="utf-8")
    assert document.main(["--check", str(page)]) == 1
    assert document.main([str(page)]) == 0
    assert document.main(["--check", str(page)]) == 0
    assert document.main(["--check", str(tmp_path / "missing.md")]) == 1


def test_every_message_and_field_is_on_it() -> None:
    text = document.page()
    sections = dict(re.findall(r"^### `?(\w+)`?\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    kinds = [*get_args(messages.Request), *get_args(messages.Answer), messages.SegmentJob, messages.Device]
    assert set(sections) == {kind.__struct_config__.tag or kind.__name__ for kind in kinds}
    for kind in kinds:
        section = sections[kind.__struct_config__.tag or kind.__name__]
        fields = {field.name for field in msgspec.structs.fields(kind)} - {"request"}
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*?) ?\| (.+) \|$", section, re.MULTILINE)
        assert {name for name, *_ in rows} == fields
        assert all(explained.strip() for *_, explained in rows)
    assert "@" not in text


def test_bounds_and_defaults_are_told() -> None:
    text = document.page()
    for row in (
        "| `credit` | integer from 1 to 32 |  | added to what is left |",
        '| `context` | `scene`, `nearby` | `"scene"` |',
        "| `window` | window or null | `null` |",
        "| `bands` | list: integer from 1 to 65536, at most 1,024 | `[]` |",
    ):
        assert row in text, row


def test_a_field_without_an_explanation_is_an_error() -> None:
    class Bare(messages.Message, tag="bare"):
        explained: int  # it is
        bare: int

    with pytest.raises(LookupError, match=r"Bare\.bare"):
        document.explanations(Bare)


def test_a_comment_above_explains_too() -> None:
    assert document.explanations(messages.Models)["models"].startswith("of each: id")


def test_every_code_the_daemon_names_is_on_the_page() -> None:
    text = document.page()
    folder = Path(document.__file__).parents[1] / "daemon"
    files = [path for path in folder.glob("*.py") if path.name != "probe.py"]  # a client's side
    codes = {code for path in files for code in re.findall(r'"(E_[A-Z_]+)"', path.read_text())}
    assert {code for code in codes if f"`{code}`" not in text} == set()
    assert len(codes) > 20
