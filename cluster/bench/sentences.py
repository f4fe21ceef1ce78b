"""What robot callers say in the benchmarks: sentences of the kind that people say to an assistant."""

from __future__ import annotations

QUESTIONS = (
    "Hello, can you hear me?",
    "What is the capital of France?",
    "Please tell me a short story.",
    "How are you doing today?",
    "What is the weather like in the summer?",
    "Can you help me write a letter?",
    "What time does the train leave?",
    "Tell me something about the ocean.",
    "How many days are in a week?",
    "What should I cook for dinner tonight?",
    "Could you explain how a car works?",
    "I would like to learn about history.",
    "Where can I buy a good book?",
    "Why is the sky blue?",
    "Give me some advice for a long walk.",
    "Thank you very much for your help.",
)
"""16 sentences, 101 words."""

PAUSED = (
    ("I would like to know", "what the weather is like today"),
    ("Can you tell me", "how far it is to the city"),
    ("When I was a child", "we had a small house near the river"),
    ("Please remind me", "to call my mother in the morning"),
    ("I was thinking about", "what we should cook for dinner"),
    ("The train to the city", "leaves at what time in the evening"),
)
"""Sentences with a pause in the middle, as people make them while they think."""

PAUSE_SECONDS = 0.4

LONG_ANSWER = "Please tell me a long story about the sea."
INTERRUPTION = "Stop, please stop talking now."
