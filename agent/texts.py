"""Sentences that the assistant says without asking a model, in the caller's language."""

from __future__ import annotations

from typing import Literal

from serve.assistant import Assistant

Text = Literal[
    "filler",
    "silence",
    "silence_end",
    "too_long",
    "goodbye",
    "transfer",
    "apology",
    "unheard",
    "file_read",
    "file_refused",
]

_TEXTS: dict[str, dict[Text, str]] = {
    "en": {
        "filler": "One moment, please.",
        "silence": "Are you still there?",
        "silence_end": "I cannot hear you, so I will hang up now. Goodbye.",
        "too_long": "I am sorry, our time is up. Thank you for the call, and goodbye.",
        "goodbye": "Goodbye.",
        "transfer": "I will put you through now. Please hold the line.",
        "apology": "I am sorry, I could not answer that. Please try again.",
        "unheard": "I am sorry, I could not understand that. Please say it again.",
        "file_read": "I have read {name}.",
        "file_refused": "I am sorry, I could not read {name}.",
    },
    "de": {
        "filler": "Einen Moment, bitte.",
        "silence": "Sind Sie noch da?",
        "silence_end": "Ich höre Sie nicht mehr und lege jetzt auf. Auf Wiederhören.",
        "too_long": "Es tut mir leid, unsere Zeit ist um. Vielen Dank für den Anruf und auf Wiederhören.",
        "goodbye": "Auf Wiederhören.",
        "transfer": "Ich verbinde Sie jetzt. Bitte bleiben Sie am Apparat.",
        "apology": "Es tut mir leid, das konnte ich nicht beantworten. Bitte versuchen Sie es noch einmal.",
        "unheard": "Es tut mir leid, das habe ich nicht verstanden. Bitte sagen Sie es noch einmal.",
        "file_read": "Ich habe {name} gelesen.",
        "file_refused": "Es tut mir leid, {name} konnte ich nicht lesen.",
    },
    "fr": {
        "filler": "Un instant, s'il vous plaît.",
        "silence": "Vous êtes toujours là ?",
        "silence_end": "Je ne vous entends plus, je vais donc raccrocher. Au revoir.",
        "too_long": "Je suis désolé, notre temps est écoulé. Merci de votre appel, et au revoir.",
        "goodbye": "Au revoir.",
        "transfer": "Je vous mets en relation. Restez en ligne, s'il vous plaît.",
        "apology": "Je suis désolé, je n'ai pas pu répondre. Veuillez réessayer.",
        "unheard": "Je suis désolé, je n'ai pas compris. Pouvez-vous répéter ?",
        "file_read": "J'ai lu {name}.",
        "file_refused": "Je suis désolé, je n'ai pas pu lire {name}.",
    },
    "es": {
        "filler": "Un momento, por favor.",
        "silence": "¿Sigue usted ahí?",
        "silence_end": "No le oigo, así que voy a colgar. Adiós.",
        "too_long": "Lo siento, se nos ha acabado el tiempo. Gracias por llamar, y adiós.",
        "goodbye": "Adiós.",
        "transfer": "Le paso ahora. No cuelgue, por favor.",
        "apology": "Lo siento, no he podido responder. Inténtelo de nuevo, por favor.",
        "unheard": "Lo siento, no le he entendido. Repítalo, por favor.",
        "file_read": "He leído {name}.",
        "file_refused": "Lo siento, no he podido leer {name}.",
    },
}


def text(assistant: Assistant, name: Text, language: str | None = None) -> str:
    """Return a sentence: the assistant's own, else the one of a language, else the English one.

    Args:
        assistant: Who speaks.
        name: Which sentence.
        language: Of the caller, BCP 47; None: the assistant's.
    """
    own: str | None = getattr(assistant.texts, name)
    primary = (language or assistant.language).replace("_", "-").split("-")[0].lower()
    return own if own is not None else _TEXTS.get(primary, _TEXTS["en"])[name]
