"""The process from which readers of documents are forked: all is imported, nothing foreign was read."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import warnings

import msgspec

from extproc.extraction import chunking, encodings, job, wire

_CRASHED = 70


class Template:
    """Forks a process for each job that comes on a control socket, and reaps it.

    It has no threads and reads no document. A job's socket that its worker has closed ends the job's process.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._answers: dict[int, socket.socket] = {}
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)

    def serve(self) -> None:
        """Serve until the worker closes the control socket; readers end with this process."""
        warnings.simplefilter("ignore")
        chunking.warm()
        encodings.warm()
        # What is here by now is never freed: forks share it with us.
        gc.collect()
        gc.freeze()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        while self._serve_once():
            pass

    def _serve_once(self) -> bool:
        """Wait for what happens next; False when the worker wants no more."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        for answers in self._answers.values():
            # Hang-ups alone.
            poll.register(answers, 0)
        happened = {descriptor for descriptor, _ in poll.poll()}
        if self._woken in happened:
            os.read(self._woken, 4096)
        self._reap()
        for process, answers in self._answers.items():
            if answers.fileno() in happened:
                os.kill(process, signal.SIGKILL)
        return self._control.fileno() not in happened or self._take()

    def _take(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, wire.JOB_BYTES, 2)
        if not message:
            return False
        document, theirs = descriptors
        answers = socket.socket(fileno=theirs)
        wanted = msgspec.msgpack.decode(message, type=wire.Job)
        template = os.getpid()
        process = os.fork()
        if process == 0:
            self._become(wanted, document, answers, template)
        os.close(document)
        self._answers[process] = answers
        return True

    def _become(
        self, wanted: wire.Job, document: int, answers: socket.socket, template: int
    ) -> None:
        """Do the job in the process that was forked for it; never returns."""
        status = _CRASHED
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            job.run(wanted, document, answers, template)
            status = 0
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while self._answers:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            with self._answers.pop(process) as answers:
                # Its worker may have left, or may not read: this waits for nobody.
                answers.setblocking(False)
                try:
                    answers.send(wire.ended_frame(os.waitstatus_to_exitcode(status)))
                except OSError:
                    pass
