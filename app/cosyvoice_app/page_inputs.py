"""What the page's events are sent: by the page what a person entered, by a program anything.

gradio looks at it before the event's function does, and not as this service has to. Where a file is expected
it takes the path of any that this process can read, copies it to where anybody may fetch it, and fetches what
is an address itself: it compares paths only in an app that it has launched, and ours is mounted. What is of
another kind it refuses in English, and writes it into the journal. So it is looked at here first.
"""

from __future__ import annotations

import html
import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import BadRequest, ServiceError, speaks_chinese
from .quick_gradio import import_gradio
from .sessions import is_upload, paths_in

gr = import_gradio()


class Page(gr.Blocks):  # type: ignore[name-defined, misc]
    """Blocks that run no event with anything but what its components can hold."""

    def __init__(self, *, uploads: Path, **more: Any) -> None:
        """uploads: gradio's folder for uploaded files."""
        super().__init__(**more)
        self._uploads = {str(uploads), str(uploads.resolve())}

    async def process_api(self, block_fn: Any, inputs: list[Any], **more: Any) -> Any:
        event = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        try:
            self._check(event, inputs)
        except BadRequest as error:
            headers = getattr(more.get("request"), "headers", {})
            raise shown(error, speaks_chinese(headers.get("accept-language", ""))) from None
        return await super().process_api(block_fn, inputs, **more)

    def _check(self, event: Any, inputs: Sequence[Any]) -> None:
        """Raises BadRequest."""
        if len(inputs) < len(event.inputs):
            raise BadRequest(
                f"this event takes {len(event.inputs)} values, but got {len(inputs)}; send all of them",
                zh=f"此事件需要 {len(event.inputs)} 个值，只收到 {len(inputs)} 个；请全部发送",
            )
        for path in paths_in(inputs):
            if not self._uploaded(path):
                raise BadRequest(
                    f"{str(path)[:80]!r} was not uploaded; upload the file itself",
                    zh=f"{str(path)[:80]!r} 不是上传的文件；请上传文件本身",
                )
        for name, component, value in _named(event, inputs):
            for kinds, accepted, wanted, wanted_zh in _KINDS:
                if isinstance(component, kinds) and not accepted(value):
                    raise BadRequest(
                        f"{name} is {str(value)[:40]!r}; send {wanted}",
                        zh=f"{name} 是 {str(value)[:40]!r}；请发送{wanted_zh}",
                    )

    def _uploaded(self, path: Any) -> bool:
        if not isinstance(path, str):
            return False
        folder, name = os.path.split(path)
        above, digest = os.path.split(folder)
        return above in self._uploads and is_upload(f"{digest}/{name}")


# Components that hand on what was sent: the service checks ranges and names, in both languages.


class Radio(gr.Radio):  # type: ignore[name-defined, misc]
    is_template = True  # the browser is to take it for what it is made of

    def preprocess(self, payload: Any) -> Any:
        return payload


class Slider(gr.Slider):  # type: ignore[name-defined, misc]
    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


class Number(gr.Number):  # type: ignore[name-defined, misc]
    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


def shown(error: ServiceError, chinese: bool) -> Exception:
    """An error as the page shows it."""
    # gradio takes a message for HTML, and it may quote what a user sent.
    return gr.Error(html.escape(error.text(chinese), quote=False), print_exception=False)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_switch(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_file(value: Any) -> bool:
    return value is None or isinstance(value, dict)


_KINDS = (
    ((gr.Textbox, gr.Radio, gr.Dropdown), _is_text, "a text", "文本"),
    ((gr.Number, gr.Slider), _is_number, "a number", "数字"),
    ((gr.Checkbox,), _is_switch, "true or false", " true 或 false"),
    ((gr.Audio,), _is_file, "an uploaded file", "上传的文件"),
)


def _named(event: Any, inputs: Sequence[Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, component and value of each input, by the parameters of the event's function."""
    names = inspect.signature(event.fn).parameters if event.fn is not None else ()
    return zip(names, event.inputs, inputs, strict=False)
