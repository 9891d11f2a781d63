from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import APP

from cosyvoice_app import errors
from cosyvoice_app.errors import BadRequest, ServiceError, speaks_chinese

KINDS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ServiceError)
}


def test_a_body_is_in_the_readers_language() -> None:
    error = BadRequest("speed is 9", zh="语速是 9", param="speed")
    assert error.body()["error"] == {
        "message": "speed is 9",
        "type": "invalid_request_error",
        "param": "speed",
        "code": "invalid_value",
    }
    assert error.body(chinese=True)["error"]["message"] == "语速是 9"
    assert str(error) == "speed is 9", "logs are in English"
    assert BadRequest("no translation").body(chinese=True)["error"]["message"] == "no translation"


def test_the_first_language_counts() -> None:
    assert speaks_chinese("zh-CN,zh;q=0.9,en;q=0.8")
    assert speaks_chinese(" ZH")
    assert not speaks_chinese("en-US,zh;q=0.5")
    assert not speaks_chinese("")


@pytest.mark.parametrize("path", sorted(APP.glob("cosyvoice_app/**/*.py")), ids=lambda path: path.name)
def test_every_error_that_users_see_has_its_chinese_text(path: Path) -> None:
    without = [
        f"{path.name}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in KINDS
        and not any(keyword.arg in ("zh", None) for keyword in node.keywords)
    ]
    assert without == []
