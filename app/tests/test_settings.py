from __future__ import annotations

from pathlib import Path

import pytest

from cosyvoice_app.settings import SettingsError, load_settings


def test_defaults_hold_without_any_environment() -> None:
    settings = load_settings([], {})
    assert (settings.host, settings.port, settings.engine) == ("127.0.0.1", 7860, "cpu")
    assert settings.outputs == Path.cwd() / "outputs"
    assert settings.waiting_room == 0, "nothing waits without --enable-queue"
    assert (settings.outputs_days, settings.outputs_quota) == (0, 0), "results stay"


def test_flags_and_environment_are_read() -> None:
    settings = load_settings(
        ["--host", "0.0.0.0", "--port", "7861", "--enable-queue"],
        {"COSYVOICE_NODE": "rs-2", "COSYVOICE_QUEUE_LENGTH": "7", "COSYVOICE_TIME_LIMIT": "2.5"},
    )
    assert (settings.host, settings.port, settings.node) == ("0.0.0.0", 7861, "rs-2")
    assert settings.waiting_room == 7
    assert settings.time_limit == 2.5
    assert settings.drain_limit == 2.5, "it follows the time limit, up to 60 s"
    assert load_settings([], {}).time_limit == 60
    assert load_settings(["--max-seconds", "7.5"], {"COSYVOICE_TIME_LIMIT": "9"}).time_limit == 7.5


def test_all_problems_are_told_at_once_with_name_value_and_what_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SettingsError) as caught:
        load_settings(
            ["--port", "70000", "--max-seconds", "nan"],
            {
                "COSYVOICE_NODE": "rs 2\r\nX-Bad: 1",
                "COSYVOICE_ENGINE": "magic",
                "COSYVOICE_OUTPUTS": str(file),
                "COSYVOICE_QUEUE_LENGTH": "-1",
                "COSYVOICE_TIME_LIMIT": "nan",
                "COSYVOICE_WAIT_LIMIT": "soon",
                "COSYVOICE_DRAIN_LIMIT": "inf",
                "COSYVOICE_OUTPUTS_DAYS": "-1",
                "COSYVOICE_OUTPUTS_QUOTA": "10G",
            },
        )
    assert len(caught.value.problems) == 11
    message = str(caught.value)
    for part in (
        "--port 70000",
        "--max-seconds nan: set it to a number of s from 0.1 to 3600",
        "COSYVOICE_ENGINE='magic': set it to one of: cpu",
        "COSYVOICE_QUEUE_LENGTH='-1': set it to a whole number of requests from 1 to 10000",
        "COSYVOICE_TIME_LIMIT='nan'",
        "COSYVOICE_WAIT_LIMIT='soon': set it to a number of s from 0.1 to 86400",
        "COSYVOICE_DRAIN_LIMIT='inf'",
        "COSYVOICE_OUTPUTS_DAYS='-1': set it to a number of days from 0 to 36500",
        "COSYVOICE_OUTPUTS_QUOTA='10G': set it to a number of GiB from 0 to 1e+06",
        "is not a directory",
    ):
        assert part in message


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(["--shere"], {})
    assert caught.value.code == 2
