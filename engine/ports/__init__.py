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
from engine.ports.embedding import (
    Embedder,
    EmbeddingKind,
)
from engine.ports.extraction import (
    Chunking,
    Extraction,
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
    Waiting,
)
from engine.ports.sealing import (
    SealBroken,
    Sealing,
    UnknownSealingKey,
)
from engine.ports.search import (
    Attributes,
    AttributeValue,
    Comparison,
    Compound,
    Filter,
    Search,
    SearchAsked,
    SearchResult,
)
from engine.ports.tools import (
    OpenProvided,
    ToolDeclaration,
    ToolDefinition,
    ToolOutcome,
    ToolProvider,
    TracedProvider,
)
from engine.ports.vector_index import (
    Hit,
    IndexedChunk,
    VectorIndex,
)
from engine.ports.vector_stores import (
    Attached,
    AttachmentPage,
    AttachmentStatus,
    ChunkCount,
    FileCounts,
    FoundChunk,
    IngestionClaim,
    IngestionErrorCode,
    IngestionLease,
    NewAttachment,
    NewVectorStore,
    Removal,
    StoreChange,
    StoredAttachment,
    StoredBatch,
    StoredChunk,
    StoredVectorStore,
    VectorStorePage,
    VectorStoreStore,
)
from engine.ports.world import (
    Clock,
    ModelAnswer,
    ModelClient,
    Reply,
    Told,
)


class Store(
    ResponseStore,
    RunStore,
    ConversationStore,
    ApprovalStore,
    ConnectorStore,
    PromptStore,
    FileStore,
    VectorStoreStore,
    Protocol,
):
    """Everything that one store keeps."""


__all__ = [
    "Answer",
    "AnswerClaim",
    "ApprovalStore",
    "AskedApproval",
    "Attached",
    "AttachmentPage",
    "AttachmentStatus",
    "AttributeValue",
    "Attributes",
    "Blob",
    "BlobStore",
    "BodyReply",
    "CancelAsked",
    "ChunkCount",
    "Chunking",
    "Claim",
    "Clock",
    "Comparison",
    "Compound",
    "ConnectorPage",
    "ConnectorStore",
    "Context",
    "ConversationContext",
    "ConversationPage",
    "ConversationPlace",
    "ConversationStore",
    "Dropped",
    "Embedder",
    "EmbeddingKind",
    "EventBatch",
    "Extraction",
    "FileCounts",
    "FilePage",
    "FileStore",
    "Filter",
    "FinishedResponse",
    "Form",
    "FormPart",
    "FoundChunk",
    "Hit",
    "Idempotency",
    "IndexedChunk",
    "IngestionClaim",
    "IngestionErrorCode",
    "IngestionLease",
    "Lease",
    "LoggedEvents",
    "ModelAnswer",
    "ModelClient",
    "NewAttachment",
    "NewConversation",
    "NewFile",
    "NewResponse",
    "NewUpload",
    "NewVectorStore",
    "OpenProvided",
    "Order",
    "Page",
    "PromptPage",
    "PromptStore",
    "Removal",
    "ReplayItem",
    "Reply",
    "ResponsePage",
    "ResponseStore",
    "RunStore",
    "SealBroken",
    "Sealing",
    "Search",
    "SearchAsked",
    "SearchResult",
    "Store",
    "StoreChange",
    "StoredApproval",
    "StoredAttachment",
    "StoredBatch",
    "StoredChunk",
    "StoredConnector",
    "StoredConversation",
    "StoredFile",
    "StoredItem",
    "StoredPrompt",
    "StoredResponse",
    "StoredUpload",
    "StoredVectorStore",
    "ThreadPoint",
    "Told",
    "ToolDeclaration",
    "ToolDefinition",
    "ToolOutcome",
    "ToolProvider",
    "TracedProvider",
    "UnknownSealingKey",
    "VectorIndex",
    "VectorStorePage",
    "VectorStoreStore",
    "Waiting",
]
