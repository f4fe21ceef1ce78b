"""Webhooks to products: what a tenant's endpoints are told of, signed and tried again until they have taken it."""

from api.webhooks.events import EVENTS, Event, announce, of_call, of_file, of_turn

__all__ = ["EVENTS", "Event", "announce", "of_call", "of_file", "of_turn"]
