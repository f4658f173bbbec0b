"""The settings of what a model is sent: summaries in the place of long histories, and counts of tokens."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from extproc.settings_section import Section

_MOST_BYTES = 64 << 10


class Context(Section):
    """What a model is sent of a long conversation (docs/compaction.md)."""

    summary_prompt_file: Path | None = None
    """File with the text that asks the model for a summary, in the place of the one in docs/compaction.md."""

    summary_tokens: int | None = Field(default=None, ge=16)
    """Most tokens of a summary (`max_output_tokens` of its turn); unset leaves it to the model server. A
    summary that is cut is used as it is."""

    estimate_tokens: bool = False
    """Where the model server does not count tokens (vLLM does, by `POST /tokenize`): take a quarter of the
    bytes that it is sent, and 1000 for an image. Otherwise what needs a count is refused."""

    @field_validator("summary_prompt_file")
    @classmethod
    def _can_be_read(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_prompt(path)
        return path


def read_prompt(path: Path) -> str:
    """Return the text of a prompt's file; raises ValueError for one that is no text, empty or too long."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    if not text or len(text) > _MOST_BYTES:
        raise ValueError("the file must hold a text of at most 64 KiB")
    return text
