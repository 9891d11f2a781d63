"""A stand-in for torch: as much of it as the worker asks, on a card of 8 GiB."""


class _OutOfMemoryError(RuntimeError):
    pass


class cuda:
    OutOfMemoryError = _OutOfMemoryError

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def mem_get_info() -> tuple[int, int]:
        return 5 << 30, 8 << 30
