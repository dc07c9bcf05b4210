"""Size and seed of the built-in corpus; imports nothing heavy, for it is read at every plan."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Voices = Annotated[int, Field(ge=1, le=999)]
HeldOutMinutes = Annotated[float, Field(gt=0, le=60)]


class SampleConfig(BaseModel):
    """How much of the built-in corpus to make."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
    )

    train_minutes: Annotated[float, Field(gt=0, le=1200)] = 55.0
    """Minutes of speech in train-clean-100."""
    train_voices: Voices = 32
    """Speakers in train-clean-100."""
    dev_minutes: HeldOutMinutes = 5.0
    """Minutes of speech in dev-clean."""
    dev_voices: Voices = 6
    """Speakers in dev-clean."""
    test_minutes: HeldOutMinutes = 6.0
    """Minutes of speech in test-clean, and as many in test-other."""
    test_voices: Voices = 8
    """Speakers in test-clean, and as many in test-other."""
    lm_sentences: Annotated[int, Field(ge=1)] = 60_000
    """Lines of text for the language model."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Draws sentences, voices and noise: another seed makes another corpus."""
