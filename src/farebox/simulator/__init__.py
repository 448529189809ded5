"""A stand-in for OpenRouter: as strict and as awkward as the real one, and deterministic.

What it answers is made up; how it answers is not. Its models, and the faults that it can be asked for, are listed in
`docs/reference/simulator.md`.
"""

from typing import Literal

As = Literal["openrouter", "openai", "anthropic"]
"""Whom it stands in for."""
