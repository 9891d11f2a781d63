"""Everything of the HTTP API, asked by the real `openai` client: openai_client.py URL

Each request is a connection of its own, so that a director which knows no client sends it anywhere. Prints
one JSON object: by kind of request, the nodes that answered it. Exits with what was wrong.
"""

import io
import json
import secrets
import sys
import time
from collections import defaultdict

import httpx
import numpy
import soundfile
from openai import BadRequestError, OpenAI

url = sys.argv[1]
served = defaultdict(set)
doing = ""


def note(response):
    served[doing].add(response.headers["x-served-by"])


http = httpx.Client(
    timeout=120, limits=httpx.Limits(max_keepalive_connections=0), event_hooks={"response": [note]}
)
key = secrets.token_hex(16)
client = OpenAI(base_url=url + "v1", api_key=key, http_client=http, max_retries=0)
# Said by nobody before: nothing comes from the share that this run has not put there.
token = secrets.token_hex(3)


def step(name):
    global doing
    doing = name
    print(name, file=sys.stderr)


def heard(data, format):
    """Seconds and loudness (root mean square, 1 is full scale) of a file."""
    if format == "pcm":
        samples, rate = numpy.frombuffer(data, "<i2") / 32768, 24000
    else:
        samples, rate = soundfile.read(io.BytesIO(data))
    return len(samples) / rate, float(numpy.sqrt(numpy.mean(samples**2)))


def speak(text, **more):
    return client.audio.speech.with_raw_response.create(model="cosyvoice3", voice="auto", input=text, **more)


step("formats")
for format in ("wav", "mp3", "opus", "pcm"):
    answer = speak(f"Said as {format}, {token}.", response_format=format, extra_body={"seed": 7})
    seconds, loudness = heard(answer.content, format)
    assert seconds > 1 and loudness > 0.01, f"{format}: {seconds} s, loudness {loudness}"

step("same input, same output")
answers = [speak(f"The same again, {token}.", extra_body={"seed": 42}) for _ in range(9)]
assert len({answer.content for answer in answers}) == 1, "the same request gave different audio"
caches = [answer.headers["x-cache"] for answer in answers]
assert caches == ["miss"] + ["hit"] * 8, caches
again = speak(
    f"The same again, {token}.", extra_body={"seed": 42}, extra_headers={"Cache-Control": "no-cache"}
)
assert again.headers["x-cache"] == "miss" and again.content == answers[0].content, "made anew, it differs"

step("stream")
began, first, data = time.monotonic(), 0.0, b""
# A synthesis of the cpu engine is quick: the sentences must be many for a first one to come early.
text = " ".join(f"This is sentence {i} of a long text, {token}." for i in range(40))
with client.audio.speech.with_streaming_response.create(
    model="cosyvoice3", voice="auto", input=text, response_format="pcm", extra_body={"stream": True}
) as stream:
    for chunk in stream.iter_bytes():
        first = first or time.monotonic() - began
        data += chunk
whole = time.monotonic() - began
seconds, loudness = heard(data, "pcm")
assert seconds > 40 and loudness > 0.01, f"stream: {seconds} s, loudness {loudness}"
print(f"stream: first audio after {first:.2f} s of {whole:.2f} s", file=sys.stderr)
assert first < whole / 2, f"the first audio came after {first:.2f} s of {whole:.2f} s: not a stream"

step("clone")
voice = speak(f"Nine clear words that somebody speaks into a microphone, {token}.", response_format="wav")
prompt = {"prompt": ("voice.wav", voice.content, "audio/wav")}
words = {"prompt_text": f"Nine clear words that somebody speaks into a microphone, {token}."}
for fields in (words, {}):  # cloned, and across languages
    answer = http.post(
        url + "v1/audio/clone", files=prompt, data={"input": f"In that voice, {token}.", **fields}
    )
    assert answer.status_code == 200, answer.text
    seconds, loudness = heard(answer.content, "wav")
    assert seconds > 1 and loudness > 0.01, f"clone: {seconds} s, loudness {loudness}"

step("saved voice")
mine = {"Authorization": f"Bearer {key}"}
saved = http.post(url + "v1/voices", files=prompt, data={"name": f"Anna {token}", **words}, headers=mine)
assert saved.status_code in (200, 201), saved.text
for i in range(6):
    listed = http.get(url + "v1/voices", headers=mine)
    assert saved.json()["id"] in listed.text, f"{listed.headers['x-served-by']} does not list the saved voice"
    answer = client.audio.speech.with_raw_response.create(
        model="cosyvoice3", voice=saved.json()["id"], input=f"Line {i}, {token}."
    )
    assert heard(answer.content, "wav")[0] > 0.5
strangers = http.get(url + "v1/voices", headers={"Authorization": f"Bearer {secrets.token_hex(16)}"})
assert saved.json()["id"] not in strangers.text, "a stranger sees the voice"

step("history")
for _ in range(6):
    names = {result["name"] for result in http.get(url + "v1/history", headers=mine).json()["data"]}
    for answer in (answers[0], voice):
        assert answer.headers["x-result-name"] in names, f"not in the history: {names}"
    sound = http.get(f"{url}v1/results/{answers[0].headers['x-result-name']}")
    assert sound.status_code == 200 and heard(sound.content, "wav")[0] > 1

step("mistakes")
try:
    speak("[h][ao9] is no pinyin", extra_headers={"Accept-Language": "zh-CN"})
    raise AssertionError("a broken annotation was spoken")
except BadRequestError as error:
    assert error.body["param"] == "input" and any("\u4e00" <= c <= "\u9fff" for c in error.message), (
        error.body
    )
try:
    speak("A seed that is too large.", extra_body={"seed": 100_000_001})
    raise AssertionError("a seed out of range was taken")
except BadRequestError as error:
    assert "100000001" in error.message, error.message

print(json.dumps({name: sorted(nodes) for name, nodes in served.items()}))
