"""The tables, by subject; importing this brings in all of them."""

from api.db.tables.accounts import ApiKey, AuditEntry, IdempotentAnswer, Person, SignIn, Tenant
from api.db.tables.assistants import Assistant, AssistantVersion
from api.db.tables.base import Base, Tenanted
from api.db.tables.calls import (
    Call,
    CallEvent,
    DeletedCall,
    File,
    LiveKitDelivery,
    Participant,
    StoredRecord,
    Turn,
    Usage,
)
from api.db.tables.webhooks import WebhookEndpoint, WebhookMessage

__all__ = [
    "ApiKey",
    "Assistant",
    "AssistantVersion",
    "AuditEntry",
    "Base",
    "Call",
    "CallEvent",
    "DeletedCall",
    "File",
    "IdempotentAnswer",
    "LiveKitDelivery",
    "Participant",
    "Person",
    "SignIn",
    "StoredRecord",
    "Tenant",
    "Tenanted",
    "Turn",
    "Usage",
    "WebhookEndpoint",
    "WebhookMessage",
]
