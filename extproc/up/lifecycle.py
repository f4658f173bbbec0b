"""What Kubernetes asks of a pod: is it ready, and is it done with its clients.

`drain` is the preStop hook of a pod that Envoy and the workers share. The rule it keeps (E4): clients are
sent elsewhere and what runs may end before anything is stopped. Only then are the workers told to stop, and
Envoy, through which they call the model, after them.
"""

from __future__ import annotations

import asyncio

from extproc.settings import Settings
from extproc.up import probes

_LOOK_SECONDS = 0.25


async def ready(settings: Settings) -> bool:
    """Return whether a worker of this pod takes requests."""
    sockets = [settings.worker_socket(index) for index in range(settings.sidecar.workers)]
    return any(await asyncio.gather(*map(probes.worker_serves, sockets)))


async def drain(settings: Settings, *, least: float, most: float) -> int:
    """Turn clients away from this pod's Envoy; return how many of their requests still run.

    `least`: seconds in which requests still come, because the news that the pod goes has to spread;
    `most`: seconds after which nothing is waited for any longer. An Envoy that does not answer has none.
    """
    admin = settings.admin_socket
    if not await probes.turn_clients_away(admin):
        return 0
    loop = asyncio.get_running_loop()
    started = loop.time()
    while True:
        running = await probes.requests_of_clients(admin) or 0
        spent = loop.time() - started
        if spent >= most or (running == 0 and spent >= least):
            return running
        await asyncio.sleep(_LOOK_SECONDS)
