"""CosyVoice in the worker process: upstream's model behind worker_process.Model.

Upstream is FunAudioLLM/CosyVoice, commit ace7c47; what is said about it here was read there: cosyvoice/cli/
cosyvoice.py (the calls), cli/model.py (streaming), cli/frontend.py (speakers), llm/llm.py (the token that
version 3 insists on) and example.py (how its authors call it).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import sys
import threading
import time
import types
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .worker_process import ModelUnavailable

# Version 3 wants every prompt in this frame and fails by an assertion in its own thread where the token is
# missing (llm.py, `<|endofprompt|> not detected`).
_SYSTEM, _END = "You are a helpful assistant.", "<|endofprompt|>"
# The voice that comes with upstream's source, and its words (example.py).
_BUNDLED, _BUNDLED_WORDS = "asset/zero_shot_prompt.wav", "希望你以后能够做的比我还好呦。"
_BUNDLED_VOICE = "cosyvoice"
# What upstream keeps per saved speaker is on the GPU; so many of other people's voices are kept there.
_MOST_SPEAKERS = 32
# Symbols of the CMU alphabet with a stress: upstream spells out digits in English text, also those.
_STRESSED = re.compile(r"\[[A-Z]{2}[0-2]\]")
_VERSIONS = (("cosyvoice3.yaml", 3), ("cosyvoice2.yaml", 2), ("cosyvoice.yaml", 1))
# What only training uses, and the description of a model names all the same, to prepare recordings.
# It would have to be compiled on each machine.
_TRAINING = ("pyworld",)
# Seconds that the threads of an interrupted synthesis get.
_SETTLE = 5.0


class CosyVoiceModel:
    """Loaded with the environment that engines/cosyvoice.py has checked and hands on."""

    def __init__(self) -> None:
        env = os.environ
        self._source = Path(env["COSYVOICE_SOURCE"])
        self._folder = Path(env["COSYVOICE_MODEL"])
        self._frontend = env["COSYVOICE_TEXT_FRONTEND"] == "1"
        version = _version(self._folder)
        switches = {
            f"load_{name.lower()}" if name != "FP16" else "fp16": env[f"COSYVOICE_{name}"] == "1"
            for name in ("FP16", "TRT", "VLLM")
        }
        if version == 1 and not switches["load_vllm"]:
            del switches["load_vllm"]  # it has no such argument
        elif version == 1:
            raise ModelUnavailable(
                f"COSYVOICE_VLLM=1: the model {self._folder} is of version 1, which vLLM cannot run; "
                "take it out, or set COSYVOICE_MODEL to a newer one",
                zh=f"COSYVOICE_VLLM=1：模型 {self._folder} 是第 1 版，不支持 vLLM；请去掉该设置",
            )
        AutoModel, self._seed = _import(self._source)
        _choose_attention()
        # Parts of the network draw their noise once, as they are made: the same on every node.
        self._seed(0)
        self._model = AutoModel(model_dir=str(self._folder), **switches)
        logging.getLogger().setLevel(logging.WARNING)  # upstream logs each text, and much more
        self._version = version
        self._inner = self._model.model
        # It grows with each synthesis that streams and is never put back, so the second one of a process
        # would be cut into other chunks, and sound different, than the first.
        self._hop = getattr(self._inner, "token_hop_len", None)
        self._before: frozenset[threading.Thread] = frozenset()
        self._borrowed: OrderedDict[str, None] = OrderedDict()
        speakers = list(self._model.list_available_spks())
        self._bundled = self._source / _BUNDLED
        bundled = self._bundled.is_file() and (version > 1 or not speakers)
        if bundled:
            self._model.add_zero_shot_spk(self._prompt(_BUNDLED_WORDS), str(self._bundled), _BUNDLED_VOICE)
            speakers = [_BUNDLED_VOICE, *(s for s in speakers if s != _BUNDLED_VOICE)]
        if not speakers:
            raise ModelUnavailable(
                f"the model {self._folder} has no voice of its own, and {self._bundled}, a recording that "
                "comes with CosyVoice's source, is not there; set COSYVOICE_SOURCE to a complete checkout",
                zh=f"模型 {self._folder} 没有自带声音，也没有 CosyVoice 源码附带的录音 {self._bundled}；"
                "请把 COSYVOICE_SOURCE 设为完整的检出",
            )
        self.info: dict[str, Any] = {
            "model": f"{self._folder.name} {_fingerprint(self._folder)}",
            "version": version,
            "rate": int(self._model.sample_rate),
            "speakers": speakers,
            # Version 1 takes an instruction by another call, for speakers of its own.
            "instruct": version > 1,
            # The voice that an instruction works with when there is no recording.
            "bundled": _BUNDLED_VOICE if bundled else "",
        }

    # What worker_process.py calls.

    def speak(self, job: dict[str, Any], payload: bytes) -> Iterator[tuple[int, bytes]]:
        self._before = frozenset(threading.enumerate())
        if self._hop is not None:
            self._inner.token_hop_len = self._hop
        with _as_file(payload) as prompt:
            speaker = job["voice"]
            if job["mode"] == "voice" and prompt is not None:
                speaker = self._borrow(job["digest"], job["prompt_text"], prompt)
            self._seed(job["seed"])
            for piece in job["pieces"]:
                # Upstream changes the speed of whole sentences only, and in a stream ignores it.
                manner = {
                    "stream": job["speed"] == 1,
                    "speed": job["speed"],
                    "text_frontend": self._frontend and not _STRESSED.search(piece),
                }
                for chunk in self._say(job, piece, speaker, prompt, manner):
                    yield int(self._model.sample_rate), _pcm(chunk["tts_speech"])

    def interrupt(self) -> None:
        """Upstream has no way to stop. Its thread appends each token to an entry of a dictionary, from which
        the generator reads: without the entries both give up at their next step.
        """
        for name, value in list(vars(self._inner).items()):
            if name.endswith("_dict") and isinstance(value, dict):
                value.clear()

    def settle(self) -> bool:
        end = time.monotonic() + _SETTLE
        left = set(threading.enumerate()) - self._before - {threading.current_thread()}
        for thread in left:
            thread.join(max(0.0, end - time.monotonic()))
        self.interrupt()  # what they kept
        return not any(thread.is_alive() for thread in left)

    def out_of_memory(self, error: BaseException) -> bool:
        cuda = getattr(sys.modules.get("torch"), "cuda", None)
        kind = getattr(cuda, "OutOfMemoryError", None)
        # Libraries below torch say it in words.
        return (kind is not None and isinstance(error, kind)) or "out of memory" in str(error).lower()

    def measure(self) -> dict[str, float]:
        cuda = getattr(sys.modules.get("torch"), "cuda", None)
        if cuda is None or not cuda.is_available():
            return {}
        free, total = cuda.mem_get_info()
        return {"gpu_memory_free_bytes": float(free), "gpu_memory_total_bytes": float(total)}

    # How upstream is called.

    def _say(
        self, job: dict[str, Any], piece: str, speaker: str, prompt: str | None, manner: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        model, mode = self._model, job["mode"]
        if mode == "clone":
            return model.inference_zero_shot(piece, self._prompt(job["prompt_text"]), prompt, **manner)
        if mode == "cross_lingual":
            return model.inference_cross_lingual(self._framed(piece), prompt, **manner)
        if mode == "instruct":
            # Never by zero_shot_spk_id: a saved speaker comes with its own prompt, which replaces the
            # instruction without a word (frontend_zero_shot).
            told = f"{_SYSTEM} {job['instruct']}{_END}" if self._version == 3 else job["instruct"] + _END
            return model.inference_instruct2(piece, told, prompt or str(self._bundled), **manner)
        if self._is_plain(speaker):
            return model.inference_sft(self._framed(piece), speaker, **manner)
        return model.inference_zero_shot(piece, "", "", zero_shot_spk_id=speaker, **manner)

    def _prompt(self, words: str) -> str:
        return f"{_SYSTEM}{_END}{words}" if self._version == 3 else words

    def _framed(self, piece: str) -> str:
        """For the calls that have no prompt text to hold the frame."""
        return self._prompt(piece)

    def _is_plain(self, speaker: str) -> bool:
        """Whether a speaker is one of version 1's, an embedding and no recording."""
        return "embedding" in self._model.frontend.spk2info[speaker]

    def _borrow(self, digest: str, words: str, prompt: str) -> str:
        """A saved voice as a speaker: its recording is worked through once, not for each text."""
        name = "borrowed-" + hashlib.sha256(f"{digest} {words}".encode()).hexdigest()[:32]
        if name in self._borrowed:
            self._borrowed.move_to_end(name)
            return name
        self._model.add_zero_shot_spk(self._prompt(words), prompt, name)
        self._borrowed[name] = None
        while len(self._borrowed) > _MOST_SPEAKERS:
            oldest, _ = self._borrowed.popitem(last=False)
            self._model.frontend.spk2info.pop(oldest, None)
        return name


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str | None]:
    """A path under which the bytes can be read, since upstream takes a recording by its path; None for none.
    It leads to memory: a voice is never left behind on a disk, however the process ends.
    """
    if not data:
        yield None
        return
    with os.fdopen(os.memfd_create("prompt"), "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _version(folder: Path) -> int:
    """Which CosyVoice a model folder holds. Raises ModelUnavailable; upstream would begin to download."""
    for name, version in _VERSIONS:
        if (folder / name).is_file():
            return version
    what = "has no cosyvoice3.yaml" if folder.is_dir() else "is not there"
    zh = "中没有 cosyvoice3.yaml" if folder.is_dir() else "不存在"
    raise ModelUnavailable(
        f"the model folder {folder} {what}; put Fun-CosyVoice3-0.5B-2512 there, or set COSYVOICE_MODEL to "
        "where it is (nothing is downloaded by itself)",
        zh=f"模型目录 {folder} {zh}；请把 Fun-CosyVoice3-0.5B-2512 放在那里，"
        "或把 COSYVOICE_MODEL 设为它所在的目录（不会自动下载）",
    )


def _import(source: Path) -> tuple[Any, Any]:
    """AutoModel and set_all_random_seed of upstream. Raises ModelUnavailable."""
    if not (source / "cosyvoice").is_dir():
        raise ModelUnavailable(
            f"COSYVOICE_SOURCE={source}: there is no folder cosyvoice in it; set it to a checkout of "
            "FunAudioLLM/CosyVoice with its submodules",
            zh=f"COSYVOICE_SOURCE={source}：其中没有 cosyvoice 目录；"
            "请设为 FunAudioLLM/CosyVoice 的完整检出（含子模块）",
        )
    for name in _TRAINING:
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
    sys.path[:0] = [str(source), str(source / "third_party" / "Matcha-TTS")]
    try:
        from cosyvoice.cli.cosyvoice import AutoModel
        from cosyvoice.utils.common import set_all_random_seed
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        advice = (
            "fetch the submodules: git submodule update --init --recursive"
            if missing == "matcha"
            else "install upstream's requirements.txt, or set COSYVOICE_PYTHON to a Python that has it"
        )
        raise ModelUnavailable(
            f"{sys.executable} has no module {missing!r}, which CosyVoice needs; {advice}",
            zh=f"{sys.executable} 缺少 CosyVoice 需要的模块 {missing!r}；{advice}",
        ) from error
    return AutoModel, set_all_random_seed


def _choose_attention() -> None:
    """Not cuDNN's attention. Newer PyTorch (2.11 does, 2.4 does not) prefers it on an H100 or H200 for half
    precision, and it is compiled anew for each length, so for each token (pytorch/pytorch#155958). On an H200
    a synthesis took 3.6 times as long with half precision as without, and the process grew with each. Without
    that attention it takes 1.3 times as long, and the process stays as it is.
    """
    backends = getattr(getattr(sys.modules.get("torch"), "backends", None), "cuda", None)
    if hasattr(backends, "enable_cudnn_sdp"):
        backends.enable_cudnn_sdp(False)


def _fingerprint(folder: Path) -> str:
    """Tells one model from another in the names of results, without reading gigabytes: names and sizes of
    what is loaded, and the contents of the small files.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".pt", ".onnx", ".yaml") and path.is_file():
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            if size < 16 << 20:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _pcm(speech: Any) -> bytes:
    """16-bit PCM of a tensor with samples from -1 to 1; what is beyond is clipped, not wrapped round."""
    import numpy

    samples = numpy.clip(speech.numpy().flatten(), -1.0, 1.0)
    return (samples * 32767.0).round().astype("<i2").tobytes()
