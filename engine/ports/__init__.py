"""What the engine needs from the world, as Protocols; adapters live in `storage` and `extproc`.

Everything stored is keyed by tenant first.
"""

from __future__ import annotations

from typing import Protocol

from engine.ports.approvals import (
    Answer,
    AnswerClaim,
    ApprovalStore,
    AskedApproval,
    StoredApproval,
)
from engine.ports.blobs import (
    Blob,
    BlobStore,
)
from engine.ports.connectors import (
    ConnectorPage,
    ConnectorStore,
    StoredConnector,
)
from engine.ports.conversations import (
    ConversationContext,
    ConversationPage,
    ConversationPlace,
    ConversationStore,
    NewConversation,
    StoredConversation,
)
from engine.ports.files import (
    Dropped,
    FilePage,
    FileStore,
    NewFile,
    NewUpload,
    StoredFile,
    StoredUpload,
)
from engine.ports.forms import (
    BodyReply,
    Form,
    FormPart,
)
from engine.ports.prompts import (
    PromptPage,
    PromptStore,
    StoredPrompt,
)
from engine.ports.records import (
    CancelAsked,
    Claim,
    Context,
    EventBatch,
    FinishedResponse,
    Idempotency,
    Lease,
    LoggedEvents,
    NewResponse,
    Order,
    Page,
    ReplayItem,
    ResponsePage,
    StoredItem,
    StoredResponse,
    ThreadPoint,
)
from engine.ports.responses import (
    ResponseStore,
)
from engine.ports.runs import (
    RunStore,
)
from engine.ports.sealing import (
    SealBroken,
    Sealing,
    UnknownSealingKey,
)
from engine.ports.tools import (
    OpenProvided,
    ToolDeclaration,
    ToolDefinition,
    ToolOutcome,
    ToolProvider,
)
from engine.ports.world import (
    Clock,
    ModelAnswer,
    ModelClient,
    Reply,
)


class Store(
    ResponseStore,
    RunStore,
    ConversationStore,
    ApprovalStore,
    ConnectorStore,
    PromptStore,
    FileStore,
    Protocol,
):
    """Everything that one store keeps."""


__all__ = [
    "Answer",
    "AnswerClaim",
    "ApprovalStore",
    "AskedApproval",
    "Blob",
    "BlobStore",
    "BodyReply",
    "CancelAsked",
    "Claim",
    "Clock",
    "ConnectorPage",
    "ConnectorStore",
    "Context",
    "ConversationContext",
    "ConversationPage",
    "ConversationPlace",
    "ConversationStore",
    "Dropped",
    "EventBatch",
    "FilePage",
    "FileStore",
    "FinishedResponse",
    "Form",
    "FormPart",
    "Idempotency",
    "Lease",
    "LoggedEvents",
    "ModelAnswer",
    "ModelClient",
    "NewConversation",
    "NewFile",
    "NewResponse",
    "NewUpload",
    "OpenProvided",
    "Order",
    "Page",
    "PromptPage",
    "PromptStore",
    "ReplayItem",
    "Reply",
    "ResponsePage",
    "ResponseStore",
    "RunStore",
    "SealBroken",
    "Sealing",
    "Store",
    "StoredApproval",
    "StoredConnector",
    "StoredConversation",
    "StoredFile",
    "StoredItem",
    "StoredPrompt",
    "StoredResponse",
    "StoredUpload",
    "ThreadPoint",
    "ToolDeclaration",
    "ToolDefinition",
    "ToolOutcome",
    "ToolProvider",
    "UnknownSealingKey",
]
