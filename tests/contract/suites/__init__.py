"""What every `engine.ports.Store` does: run by one test module for each adapter.

Each test gets a store with nothing in it (`store`), a tenant's name (`tenant`), and a way to let the
store's time pass (`wait`). `narrow` is a store of the same kind that reads up to 100 bytes at once.
"""

from __future__ import annotations

import uuid

import pytest

from tests.contract.suites.approvals import ApprovalContract
from tests.contract.suites.attachments import AttachmentContract
from tests.contract.suites.bounds import BoundContract
from tests.contract.suites.cancelling import CancelContract
from tests.contract.suites.connectors import ConnectorContract
from tests.contract.suites.conversation_items import ConversationItemContract
from tests.contract.suites.conversations import ConversationContract
from tests.contract.suites.ends import EndContract
from tests.contract.suites.files import FileContract
from tests.contract.suites.ingestions import IngestionContract
from tests.contract.suites.keys import KeyContract
from tests.contract.suites.leases import LeaseContract
from tests.contract.suites.lists import ListContract
from tests.contract.suites.logs import LogContract
from tests.contract.suites.prompts import PromptContract
from tests.contract.suites.queue import QueueContract
from tests.contract.suites.reading import ReadingContract
from tests.contract.suites.retention import RetentionContract
from tests.contract.suites.threads import HistoryContract
from tests.contract.suites.trees import TreeContract
from tests.contract.suites.vector_stores import VectorStoreContract

__all__ = ["StoreContract", "tenant"]


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody else uses."""
    return f"tenant-{uuid.uuid4().hex}"


class StoreContract(
    ReadingContract,
    BoundContract,
    HistoryContract,
    ConversationContract,
    ConversationItemContract,
    EndContract,
    ListContract,
    TreeContract,
    LeaseContract,
    QueueContract,
    CancelContract,
    LogContract,
    KeyContract,
    RetentionContract,
    ApprovalContract,
    ConnectorContract,
    PromptContract,
    FileContract,
    VectorStoreContract,
    AttachmentContract,
    IngestionContract,
):
    """All of it; subclass it as `Test…` in a module with the fixtures."""
