"""The life of a process that reads one document: from the fork to its end."""

from __future__ import annotations

import os
import socket

from extproc.extraction import wire
from extproc.extraction.bounds import MIB, Unreadable
from extproc.extraction.chunking import chunks_of
from extproc.extraction.confinement import close_all_but, confine
from extproc.extraction.reading import read_document
from extproc.extraction.wire import Job


def run(job: Job, document: int, answers: socket.socket, template: int) -> None:
    """Read the document behind a descriptor, confined, and tell what it says in frames."""
    close_all_but([document, answers.fileno()])
    filtered = confine(job.bounds, template)
    answers.sendall(wire.frame(wire.STARTED, b"" if filtered else wire.UNFILTERED))
    try:
        _answer(job, document, answers)
    except Unreadable as why:
        answers.sendall(wire.refusal_frame(why))
    except MemoryError:
        most = job.bounds.memory_bytes // MIB
        refused = Unreadable(
            f"Reading the document takes over {most} MiB of memory, which is the limit."
        )
        answers.sendall(wire.refusal_frame(refused))


def _answer(job: Job, document: int, answers: socket.socket) -> None:
    os.lseek(document, 0, os.SEEK_SET)
    with os.fdopen(document, "rb") as file:
        text, markup = read_document(file, job.filename, job.bounds)
    if job.cut is None:
        for piece in wire.text_frames(text):
            answers.sendall(piece)
    else:
        for chunk in chunks_of(text, job.cut, markup=markup):
            answers.sendall(wire.frame(wire.CHUNK, chunk.encode()))
    answers.sendall(wire.frame(wire.DONE))
