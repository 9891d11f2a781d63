"""A stand-in for upstream's module of this name: the same classes, methods and arguments (test_cosyvoice.py
compares them with upstream's source), and tones instead of speech.

A tone's pitch tells what it was asked for, its noise the seed. Words in the text make it misbehave: see
_misbehave. As upstream, it computes in a thread of its own that appends to a dictionary, from which a
generator reads, and a stream's chunks grow from one synthesis to the next.
"""

import hashlib
import json
import os
import random
import signal
import threading
import time
import uuid
from pathlib import Path

import numpy
import torch

_RATE = 24000
_LEAK = []


class _Tensor:
    def __init__(self, samples):
        self._samples = numpy.asarray(samples, dtype=numpy.float32).reshape(1, -1)
        self.shape = self._samples.shape

    def numpy(self):
        return self._samples


class _FrontEnd:
    def __init__(self):
        self.spk2info = {}


class _Model:
    def __init__(self):
        self.token_hop_len = 5
        self.tts_speech_token_dict = {}
        self.llm_end_dict = {}
        self.hift_cache_dict = {}

    def tts(self, text, asked, stream, speed):
        this = str(uuid.uuid1())
        self.tts_speech_token_dict[this], self.llm_end_dict[this] = [], False
        thread = threading.Thread(target=self._think, args=(text, this))
        thread.start()
        pitch = 200 + int(hashlib.sha256(repr(asked).encode()).hexdigest(), 16) % 1800
        if stream:
            spoken = 0
            while True:
                time.sleep(0.002)
                if len(self.tts_speech_token_dict[this]) - spoken >= self.token_hop_len:
                    tokens = self.tts_speech_token_dict[this][spoken : spoken + self.token_hop_len]
                    spoken += self.token_hop_len
                    self.token_hop_len = min(20, self.token_hop_len * 2)
                    yield {"tts_speech": self._wave(pitch, tokens, 1.0)}
                if (
                    self.llm_end_dict[this]
                    and len(self.tts_speech_token_dict[this]) - spoken < self.token_hop_len
                ):
                    break
            thread.join()
            yield {"tts_speech": self._wave(pitch, self.tts_speech_token_dict[this][spoken:], 1.0)}
        else:
            thread.join()
            yield {"tts_speech": self._wave(pitch, self.tts_speech_token_dict[this], speed)}
        self.tts_speech_token_dict.pop(this)
        self.llm_end_dict.pop(this)

    def _think(self, text, this):
        if "thread dies" in text:
            raise AssertionError("<|endofprompt|> not detected")
        if "thread runs out" in text:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        number = 0
        while number < len(text) or "endless" in text:
            if "endless" in text or "slowly" in text:
                time.sleep(0.02)
            self.tts_speech_token_dict[this].append(random.random())
            number += 1
        self.llm_end_dict[this] = True

    def _wave(self, pitch, tokens, speed):
        """40 ms for each token, as loud as its number; a chunk begins with a click, so that chunks matter."""
        length = int(0.04 * _RATE / speed)
        tone = numpy.sin(numpy.arange(length) * 2 * numpy.pi * pitch / _RATE)
        samples = numpy.concatenate([*(tone * (0.3 + 0.6 * token) for token in tokens), [0.0]])
        samples[0] = 1.5
        return _Tensor(samples)


def _misbehave(text):
    if "hang" in text:
        while True:
            time.sleep(3600)
    if "crash" in text:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "ends itself" in text:
        os._exit(7)
    if "runs out" in text and "thread" not in text:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if "leak" in text:
        _LEAK.append(b"x" * (96 << 20))
    if "fails" in text:
        raise ValueError("no such luck")
    if "print" in text:
        print("a library talks")
    if "garbage" in text:
        for number in range(3, 64):
            try:
                os.write(number, b"this is no frame " * 10)
            except OSError:
                continue
    if "flood" in text:
        while True:
            yield {"tts_speech": _Tensor(numpy.zeros(1 << 20))}
    if "nothing" in text:
        return
    yield None


def _contents(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""


class CosyVoice:
    def __init__(self, model_dir, load_jit=False, load_trt=False, fp16=False, trt_concurrent=1):
        self._load(model_dir)

    def _load(self, model_dir):
        assert not torch.backends.cuda.cudnn_sdp, "attention would be compiled anew for each token"
        self.sample_rate = _RATE
        self.model_dir = model_dir
        self.frontend = _FrontEnd()
        self.model = _Model()
        orders = Path(model_dir) / "orders.json"
        for order in json.loads(orders.read_text()) if orders.exists() else []:
            if order == "once":
                orders.unlink()
            elif order == "hang":
                time.sleep(3600)
            elif order == "crash":
                os._exit(9)
            elif order == "speakers":
                self.frontend.spk2info["中文女"] = {"embedding": 1}

    def list_available_spks(self):
        return list(self.frontend.spk2info)

    def add_zero_shot_spk(self, prompt_text, prompt_wav, zero_shot_spk_id):
        assert zero_shot_spk_id != ""
        self.frontend.spk2info[zero_shot_spk_id] = {"saved": (prompt_text, _contents(prompt_wav))}
        return True

    def save_spkinfo(self):
        raise NotImplementedError

    def inference_sft(self, tts_text, spk_id, stream=False, speed=1.0, text_frontend=True):
        asked = ("sft", self.frontend.spk2info[spk_id], tts_text, text_frontend)
        yield from self._say(tts_text, asked, stream, speed)

    def inference_zero_shot(
        self,
        tts_text,
        prompt_text,
        prompt_wav,
        zero_shot_spk_id="",
        stream=False,
        speed=1.0,
        text_frontend=True,
    ):
        speaker = self._speaker(prompt_text, prompt_wav, zero_shot_spk_id)
        self._insist(speaker[0])
        yield from self._say(tts_text, ("zero shot", speaker, tts_text, text_frontend), stream, speed)

    def inference_cross_lingual(
        self, tts_text, prompt_wav, zero_shot_spk_id="", stream=False, speed=1.0, text_frontend=True
    ):
        speaker = self._speaker("", prompt_wav, zero_shot_spk_id)
        self._insist(tts_text)
        yield from self._say(tts_text, ("cross lingual", speaker[1], tts_text), stream, speed)

    def inference_instruct(
        self, tts_text, spk_id, instruct_text, stream=False, speed=1.0, text_frontend=True
    ):
        raise NotImplementedError

    def inference_vc(self, source_wav, prompt_wav, stream=False, speed=1.0):
        raise NotImplementedError

    def _speaker(self, prompt_text, prompt_wav, zero_shot_spk_id):
        if zero_shot_spk_id:
            return self.frontend.spk2info[zero_shot_spk_id]["saved"]
        return prompt_text, _contents(prompt_wav)

    def _insist(self, prompt):
        pass

    def _say(self, text, asked, stream, speed):
        for chunk in _misbehave(text):
            if chunk is not None:
                yield chunk
                continue
            yield from self.model.tts(text, asked, stream, speed)


class CosyVoice2(CosyVoice):
    def __init__(
        self, model_dir, load_jit=False, load_trt=False, load_vllm=False, fp16=False, trt_concurrent=1
    ):
        self._load(model_dir)

    def inference_instruct2(
        self,
        tts_text,
        instruct_text,
        prompt_wav,
        zero_shot_spk_id="",
        stream=False,
        speed=1.0,
        text_frontend=True,
    ):
        speaker = self._speaker(instruct_text, prompt_wav, zero_shot_spk_id)
        self._insist(speaker[0])
        yield from self._say(tts_text, ("instruct", speaker, tts_text), stream, speed)


class CosyVoice3(CosyVoice2):
    def __init__(self, model_dir, load_trt=False, load_vllm=False, fp16=False, trt_concurrent=1):
        self._load(model_dir)

    def _insist(self, prompt):
        assert prompt.count("<|endofprompt|>") == 1, (
            "<|endofprompt|> not detected in CosyVoice3 text or prompt_text"
        )


def AutoModel(**kwargs):
    for name, kind in (("cosyvoice", CosyVoice), ("cosyvoice2", CosyVoice2), ("cosyvoice3", CosyVoice3)):
        if os.path.exists(f"{kwargs['model_dir']}/{name}.yaml"):
            return kind(**kwargs)
    raise TypeError("No valid model type found!")
