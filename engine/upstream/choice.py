"""Which dialect a model is asked in: by the settings, else by what its server proves to be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from engine.api.request import CreateRequest
from engine.context.salt import salted
from engine.upstream.care import Care
from engine.upstream.dialect import ChatDialect, Dialect, ResponsesDialect
from engine.upstream.servers import SERVERS, Profile

AUTO = "auto"


class Choice:
    """Chooses for each request; `profile` may be replaced at any time, runs that have begun do not notice.

    `default` is a dialect or `auto`. `by_model` are patterns of model names with theirs, the first that
    fits counts. `server` is the name of the only server that there is; None: whoever it proves to be. `care`
    is what is done beyond passing on; `salts`: tenants do not share the server's prefix cache.
    """

    def __init__(
        self,
        default: str = AUTO,
        by_model: Sequence[tuple[str, str]] = (),
        *,
        server: str | None = None,
        care: Care | None = None,
        salts: bool = False,
    ) -> None:
        self.care = care if care is not None else Care()
        self._salts = salts
        self._default = default
        self._by_model = by_model
        self._named = None if server is None else SERVERS[server]
        self._take(Profile())

    @property
    def profile(self) -> Profile:
        """What is known of the server now."""
        return self._profile

    @profile.setter
    def profile(self, profile: Profile) -> None:
        self._take(profile)

    def asking(self, request: CreateRequest, tenant: str) -> CreateRequest:
        """Return a tenant's request as the model is to be asked."""
        return salted(request, tenant) if self._salts else request

    def dialect(self, model: str) -> Dialect:
        """Return the dialect in which a model is asked."""
        name = self._wanted(model)
        if name == AUTO:
            name = self._profile.dialect
        return self._chat if name == self._chat.name else self._responses

    def _wanted(self, model: str) -> str:
        for pattern, name in self._by_model:
            if fnmatchcase(model, pattern):
                return name
        return self._default

    def _take(self, profile: Profile) -> None:
        if self._named is not None:
            profile = Profile(server=self._named, version=profile.version)
        self._profile = profile
        self._chat = ChatDialect(profile.server)
        self._responses = ResponsesDialect(profile.server)
