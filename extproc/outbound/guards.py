"""One guarded transport for each policy: what an operator's connector may reach, nothing else may."""

from __future__ import annotations

from extproc.outbound.policy import OutboundPolicy
from extproc.outbound.transport import GuardedTransport


class Guards:
    """Makes the transports when they are first needed; policies come from settings, so they are few."""

    def __init__(self, *, body_limit: int) -> None:
        self._body_limit = body_limit
        self._made: dict[OutboundPolicy, GuardedTransport] = {}

    def of(self, policy: OutboundPolicy) -> GuardedTransport:
        """Return the transport that keeps a policy."""
        if policy not in self._made:
            self._made[policy] = GuardedTransport(policy, body_limit=self._body_limit)
        return self._made[policy]

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._made.values():
            await transport.aclose()
