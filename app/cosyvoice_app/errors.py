"""Errors that a caller is meant to read: what was wrong, the value received, what to do; in English and in
Chinese.
"""

from __future__ import annotations


class ServiceError(Exception):
    """An answer other than success, in the shape that OpenAI clients know.

    status: HTTP status. code: a word for programs. kind: OpenAI's error `type`. param: the field at fault.
    retry_after: seconds after which the same request may succeed, sent as Retry-After. zh: the message in
    Chinese. Default: None, and then Chinese readers get the English one too.
    """

    status = 500
    code = "internal_error"
    kind = "server_error"

    def __init__(
        self,
        message: str,
        *,
        zh: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.zh = zh
        self.param = param
        self.retry_after = retry_after

    def text(self, chinese: bool = False) -> str:
        """The message in the reader's language, as far as it is there in that."""
        return (chinese and self.zh) or self.message

    def body(self, chinese: bool = False) -> dict[str, dict[str, str | None]]:
        message = self.text(chinese)
        return {"error": {"message": message, "type": self.kind, "param": self.param, "code": self.code}}


class BadRequest(ServiceError):
    """The request itself cannot be served; the same request will fail again."""

    status = 400
    code = "invalid_value"
    kind = "invalid_request_error"


class TooLarge(BadRequest):
    status = 413
    code = "request_too_large"


class SlowRequest(BadRequest):
    status = 408
    code = "request_too_slow"


class NotFound(BadRequest):
    status = 404
    code = "not_found"


class Forbidden(BadRequest):
    status = 403
    code = "forbidden"


class QueueFull(ServiceError):
    """As many wait as may; the node is well, and another one (or a moment later) may take it."""

    status = 503
    code = "queue_full"
    kind = "overloaded_error"


class Draining(ServiceError):
    status = 503
    code = "draining"
    kind = "overloaded_error"


class NotReady(ServiceError):
    status = 503
    code = "not_ready"


class OutputsUnavailable(ServiceError):
    """The directory of results, normally a network share, does not take or give files."""

    status = 503
    code = "outputs_unavailable"


class OutputsFull(OutputsUnavailable):
    status = 507
    code = "outputs_full"


class EngineError(ServiceError):
    """The engine failed on a request that it should have served."""

    status = 500
    code = "engine_failed"


class TimeLimit(EngineError):
    status = 504
    code = "time_limit"


class EngineUnavailable(Exception):
    """The engine cannot work on this machine at all, e.g. its program is missing."""


def speaks_chinese(accept_language: str) -> bool:
    """Whether the first language of an Accept-Language header is Chinese."""
    return accept_language.strip().lower().startswith("zh")
