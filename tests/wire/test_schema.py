"""The plugin's schema is the backend's messages, and a difference is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from rest_backend.wire import messages, schema


def test_plugin_schema_is_up_to_date() -> None:
    assert schema.main(["--check"]) == 0
    assert schema.SCHEMA_PATH.read_text(encoding="utf-8") == schema.schema_text()


def test_a_difference_fails_the_check_and_writing_mends_it(tmp_path: Path) -> None:
    copy = tmp_path / "messages.schema.json"
    copy.write_text(schema.schema_text().replace('"maxLength": 64', '"maxLength": 65', 1), encoding="utf-8")
    assert schema.main(["--check", str(copy)]) == 1
    assert schema.main([str(copy)]) == 0
    assert schema.main(["--check", str(copy)]) == 0
    assert schema.main(["--check", str(tmp_path / "missing.json")]) == 1


def test_every_message_and_limit_is_in_it() -> None:
    content = json.loads(schema.schema_text())
    for union, place in ((messages.Request, "requests"), (messages.Answer, "answers")):
        names = {kind.__struct_config__.tag: kind.__name__ for kind in get_args(union)}
        assert {tag: ref["$ref"].rpartition("/")[2] for tag, ref in content[place].items()} == names
        assert set(names.values()) <= set(content["$defs"])
    assert content["limits"] == {"header_bytes": 65536, "payload_bytes": 1048576, "credit": 32}
    assert content["$defs"]["Attach"]["properties"]["credit"]["maximum"] == messages.CREDIT_LIMIT
