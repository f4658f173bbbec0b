"""`engine.context.salt`: tenants have parts of their own in the model server's prefix cache."""

from __future__ import annotations

import json

from engine.context.salt import salted
from engine.intake import Caller
from engine.upstream.choice import Choice
from tests.support.engine_rig import Rig
from tests.support.fake_model import FakeModel
from tests.support.playback import request
from tests.support.servers import frames


def test_a_tenants_salt_is_its_own_whatever_a_client_sends() -> None:
    """X1: nobody gets into another's part of the cache; within its own a client may divide further."""
    salts = {
        salted(request(**fields), tenant).values["cache_salt"]
        for tenant in ("a", "b")
        for fields in ({}, {"cache_salt": "x"}, {"cache_salt": "y"})
    }
    assert len(salts) == 6
    again = salted(request(), "a").values["cache_salt"]
    assert again in salts
    # vLLM takes at most 128 characters.
    assert isinstance(again, str)
    assert len(again) == 64


async def test_the_salt_is_sent_if_the_settings_say_so() -> None:
    """Not shown to the client, and not sent to servers that would ignore or refuse it."""
    for salts, server, sent in (
        (True, "vllm", True),
        (False, "vllm", False),
        (True, "transformers", False),
    ):
        model = FakeModel(*frames("transformers", "chat_text"))
        rig = Rig(model, choice=Choice("chat", server=server, salts=salts))
        reply = await rig.create(caller=Caller("t"))
        assert ("cache_salt" in json.loads(model.bodies[0])) == sent
        assert "cache_salt" not in reply.json
