"""The settings of files: where their bytes are, and how large they may be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from extproc.settings_section import Bytes, Seconds, Section, shown

_LargeBytes = Annotated[int, Field(ge=1024, le=1 << 43)]


class Files(Section):
    """Files that clients upload. Their bytes are in a directory or in an object store; all workers and
    replicas need the same one."""

    url: str | None = None
    """An object store: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`. Its region,
    endpoint and credentials come from the environment, under the names that its own tools use
    (`AWS_REGION`, `AWS_ENDPOINT_URL` …). Unset: the directory below."""

    directory: Path = Field(
        default=Path(".data/files"), json_schema_extra=shown("`<data_dir>/files`")
    )
    """The directory, where no object store is given; made if it is not there."""

    timeout_seconds: Seconds = 60.0
    """How long the directory or the object store may hang: a file that waits longer for its next bytes to be
    taken or given, or for its end, is answered with 503. A request to an object store is tried twice in that
    time, so each of the two has half of it for 8 MiB."""

    file_bytes: _LargeBytes = 512 << 20
    """Largest file that is sent in one request."""

    part_bytes: Bytes = 64 << 20
    """Largest part of an upload."""

    upload_bytes: _LargeBytes = 8 << 30
    """Largest file that is uploaded in parts."""

    input_bytes: Bytes = 10 << 20
    """Largest file that a request hands to a model as text."""

    input_text_bytes: Bytes = 10 << 20
    """Most text that a model is handed of a document that is no plain text (PDF, DOCX …)."""

    upload_seconds: Seconds = 3600.0
    """How long an upload may be added to and completed."""
