"""The engines by name. An engine's module is imported when it is chosen, since one may need gigabytes."""

from __future__ import annotations

from importlib import import_module

from .base import MODES, Engine, Mode, Plan, Preset, Prompt, SpeechRequest, Voice, mode_for

#: COSYVOICE_ENGINE -> module and class.
REGISTRY: dict[str, tuple[str, str]] = {
    "cpu": ("cosyvoice_app.engines.cpu", "CpuEngine"),
    "cosyvoice": ("cosyvoice_app.engines.cosyvoice", "CosyVoiceEngine"),
}


def create_engine(name: str) -> Engine:
    """A new engine, not started yet. Raises KeyError for a name that is not in REGISTRY."""
    module, cls = REGISTRY[name]
    engine = getattr(import_module(module), cls)()
    assert isinstance(engine, Engine)
    return engine


__all__ = [
    "MODES",
    "REGISTRY",
    "Engine",
    "Mode",
    "Plan",
    "Preset",
    "Prompt",
    "SpeechRequest",
    "Voice",
    "create_engine",
    "mode_for",
]
