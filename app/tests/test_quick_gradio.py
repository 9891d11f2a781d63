from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cosyvoice_app import quick_gradio

APP = Path(quick_gradio.__file__).parent.parent


def python(code: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SSL_CERT_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=APP, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_left_out_is_still_what_gradio_would_load() -> None:
    """Fails when a newer gradio has made an omission void: take it off the lists in quick_gradio.py."""
    spec = importlib.util.find_spec("gradio")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent

    def imports(file: str, module: str) -> bool:
        return bool(re.search(rf"^(import|from) {re.escape(module)}\b", (folder / file).read_text(), re.M))

    for name in quick_gradio.SHELLS:
        assert imports("__init__.py", name), name
    for name in quick_gradio.LATE:
        assert imports("caching.py", name), name
    assert "def create_or_modify_pyi(" in (folder / "component_meta.py").read_text()
    assert "def set_doc(" in (folder / "events.py").read_text()


def test_the_omissions_take_hold_and_nothing_is_left_behind() -> None:
    said = python(
        "import os, sys\n"
        "from cosyvoice_app.quick_gradio import import_gradio\n"
        "gr = import_gradio()\n"
        "assert import_gradio() is gr\n"
        f"shells = [n for n in {quick_gradio.SHELLS!r} if hasattr(sys.modules[n], '__file__')]\n"
        "print('pandas.core' in sys.modules, shells, 'SSL_CERT_DIR' in os.environ,\n"
        "      [f for f in sys.meta_path if 'quick' in type(f).__module__])"
    )
    assert said == "False [] False []"


def test_pandas_comes_when_it_is_asked_for() -> None:
    said = python(
        "from cosyvoice_app.quick_gradio import import_gradio\n"
        "gr = import_gradio()\n"
        "import pandas\n"
        "print(pandas.DataFrame({'a': [1, 2]}).sum().iloc[0], gr.Dataframe(value=[[1]]).get_block_name())"
    )
    assert said == "3 dataframe"


def test_what_was_left_out_says_so_when_it_is_used() -> None:
    with pytest.raises(AssertionError, match=r"take gradio\.external off SHELLS"):
        python("from cosyvoice_app.quick_gradio import import_gradio\nimport_gradio().load('models/x')")
