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


class backends:
    class cuda:
        #: Whether attention may be cuDNN's, as in newer versions.
        cudnn_sdp = True

        @classmethod
        def enable_cudnn_sdp(cls, enabled: bool) -> None:
            cls.cudnn_sdp = enabled
