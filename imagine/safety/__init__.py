"""What may be asked of us."""

from imagine.safety.prompt_policy import allow_prompt

__all__ = ["allow_prompt"]
