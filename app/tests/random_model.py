"""Makes a model of CosyVoice3's shape with random numbers for weights: upstream can load it and speak with it
on a GPU or a processor, and what it says is noise. Run by test_upstream.py with upstream's packages:

    random_model.py UPSTREAM TARGET small|full

The description is that of upstream's own training recipe; small has fewer layers, full takes what the real
model takes to compute. What the hub adds to the weights is made up: a vocabulary of single bytes, whose
control tokens have their right numbers, and two ONNX networks that take and give what upstream expects of
them. The model never finds an end, so a text is as long as upstream allows: 0.8 s for each byte.
"""

# ruff: noqa: E402
import json
import sys
import types
from pathlib import Path

SOURCE, TARGET = map(Path, sys.argv[1:3])
SMALL = {"small": True, "full": False}[sys.argv[3]]
# Layers of the language model and numbers in each: Qwen2-0.5B's, which the recipe does not say.
LAYERS, INNER = (2, 512) if SMALL else (24, 4864)
# What the recipe says, and what a small model has instead.
SMALLER = {
    "dim: 1024": "dim: 256",
    "depth: 22": "depth: 2",
    "heads: 16": "heads: 4",
    "base_channels: 512": "base_channels: 64",
    "cond_channels: 512": "cond_channels: 64",
}
sys.path[:0] = [str(SOURCE), str(SOURCE / "third_party" / "Matcha-TTS")]
sys.modules["pyworld"] = types.ModuleType("pyworld")  # as cosyvoice_model.py does

import numpy
import onnx
import torch
from hyperpyyaml import load_hyperpyyaml
from onnx import TensorProto, helper, numpy_helper
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

# Qwen2's first control token; upstream's <|endofprompt|> comes three after it.
FIRST_CONTROL = 151_643


def language_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    letters = list(bytes_to_unicode().values())
    unused = [f"<made-up-{number}>" for number in range(len(letters), FIRST_CONTROL)]
    vocabulary = {token: number for number, token in enumerate([*letters, *unused])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    end = "<|endoftext|>"
    names = {"tokenizer_class": "Qwen2Tokenizer", "unk_token": end, "eos_token": end, "pad_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


def save(path: Path, nodes: list, inputs: list, outputs: list, constants: dict) -> None:
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def speaker(path: Path) -> None:
    """Frames of 80 numbers to 192."""
    save(
        path,
        [
            helper.make_node("ReduceMean", ["frames"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["embedding"]),
        ],
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, None, 80])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 192])],
        {"weights": numpy.random.default_rng(0).standard_normal((80, 192)).astype("float32")},
    )


def tokens(path: Path) -> None:
    """A spectrogram to one of 6561 tokens for each four frames."""
    whole = {"from": [0, 0], "to": [1, 2**31], "axes": [1, 2], "steps": [1, 4], "first": [1]}
    save(
        path,
        [
            helper.make_node("Slice", ["feats", "from", "to", "axes", "steps"], ["some"]),
            helper.make_node("Squeeze", ["some", "first"], ["row"]),
            helper.make_node("Abs", ["row"], ["positive"]),
            helper.make_node("Mul", ["positive", "scale"], ["scaled"]),
            helper.make_node("Clip", ["scaled", "least", "most"], ["clipped"]),
            helper.make_node("Cast", ["clipped"], ["indices"], to=TensorProto.INT32),
            helper.make_node("Identity", ["feats_length"], ["unused"]),
        ],
        [
            helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, 128, None]),
            helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
        ],
        [
            helper.make_tensor_value_info("indices", TensorProto.INT32, [1, None]),
            helper.make_tensor_value_info("unused", TensorProto.INT32, [1]),
        ],
        {
            **{name: numpy.array(value, "int64") for name, value in whole.items()},
            **{n: numpy.array(v, "float32") for n, v in (("scale", 3000), ("least", 0), ("most", 6560))},
        },
    )


torch.manual_seed(0)
language_model(TARGET / "CosyVoice-BlankEN")
recipe = (SOURCE / "examples/libritts/cosyvoice3/conf/cosyvoice3.yaml").read_text()
for line, smaller in SMALLER.items() if SMALL else ():
    assert recipe.count(line) == 1, f"the recipe does not say {line!r} once"
    recipe = recipe.replace(line, smaller)
(TARGET / "cosyvoice3.yaml").write_text(recipe)
with (TARGET / "cosyvoice3.yaml").open() as file:
    parts = load_hyperpyyaml(file, overrides={"qwen_pretrain_path": str(TARGET / "CosyVoice-BlankEN")})
with torch.no_grad():
    said = parts["llm"].llm_decoder.weight
    said *= 6  # some tokens are likelier than others, as in a trained model
    said[parts["llm"].speech_token_size :] = 0  # the ends are the least likely
for name in ("llm", "flow", "hift"):
    torch.save(parts[name].state_dict(), TARGET / f"{name}.pt")
speaker(TARGET / "campplus.onnx")
tokens(TARGET / "speech_tokenizer_v3.onnx")
