"""Instructions that CosyVoice3 was trained to follow, by names that people know.

The sentences are those of the list `instruct_list` in upstream's cosyvoice/utils/common.py (FunAudioLLM/
CosyVoice, commit ace7c47), word for word, since the model knows them so: 17 dialects, volume, pace, emotion
and two characters. (Its README speaks of "18+ dialects/accents"; the list has 17.) Upstream's frame around
each, `You are a helpful assistant. ...<|endofprompt|>`, is added where the model is called.
"""

from __future__ import annotations

from .base import Preset

_DIALECTS = (
    ("cantonese", "Cantonese", "广东话"),
    ("dongbei", "Northeastern (Dongbei)", "东北话"),
    ("gansu", "Gansu", "甘肃话"),
    ("guizhou", "Guizhou", "贵州话"),
    ("henan", "Henan", "河南话"),
    ("hubei", "Hubei", "湖北话"),
    ("hunan", "Hunan", "湖南话"),
    ("jiangxi", "Jiangxi", "江西话"),
    ("minnan", "Southern Min (Minnan)", "闽南话"),
    ("ningxia", "Ningxia", "宁夏话"),
    ("shanxi", "Shanxi", "山西话"),
    ("shaanxi", "Shaanxi", "陕西话"),
    ("shandong", "Shandong", "山东话"),
    ("shanghai", "Shanghainese", "上海话"),
    ("sichuan", "Sichuanese", "四川话"),
    ("tianjin", "Tianjin", "天津话"),
    ("yunnan", "Yunnan", "云南话"),
)

#: Every preset, the dialects first.
PRESETS: tuple[Preset, ...] = (
    *(Preset(id, "dialect", english, name, f"请用{name}表达。") for id, english, name in _DIALECTS),
    Preset("happy", "emotion", "Happy", "开心", "请非常开心地说一句话。"),
    Preset("sad", "emotion", "Sad", "伤心", "请非常伤心地说一句话。"),
    Preset("angry", "emotion", "Angry", "生气", "请非常生气地说一句话。"),
    Preset("slow", "pace", "As slowly as possible", "尽可能慢", "请用尽可能慢地语速说一句话。"),
    Preset("fast", "pace", "As fast as possible", "尽可能快", "请用尽可能快地语速说一句话。"),
    Preset("loud", "volume", "Loud", "大声", "Please say a sentence as loudly as possible."),
    Preset("soft", "volume", "Soft", "轻声", "Please say a sentence in a very soft voice."),
    Preset("peppa", "style", "Peppa Pig", "小猪佩奇", "我想体验一下小猪佩奇风格，可以吗？"),
    Preset("robot", "style", "Robot", "机器人", "你可以尝试用机器人的方式解答吗？"),
)
