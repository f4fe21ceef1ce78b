"""OpenAI's HTTP API on Parley's own models, under /v1: a file for each subject."""
