"""`engine.ids`: ids of API objects."""

from __future__ import annotations

from engine.ids import RANDOM_BYTES, ItemIds, response_id


def test_a_response_id_holds_all_of_the_randomness() -> None:
    """X1: an id is not guessable."""
    assert response_id(bytes(range(RANDOM_BYTES))) == "resp_000102030405060708090a0b0c0d0e0f"


def test_item_ids_are_derived_from_the_response_and_never_repeat() -> None:
    """A replayed run mints the same ids."""
    minted = [[ItemIds("resp_ab").mint("msg")], []]
    ids, again = ItemIds("resp_ab"), ItemIds("resp_ab")
    minted = [[one.mint(kind) for kind in ("msg", "fc", "call") * 3] for one in (ids, again)]
    assert minted[0] == minted[1]
    assert len(set(minted[0])) == 9
    assert minted[0][0] == "msg_ab0000"
