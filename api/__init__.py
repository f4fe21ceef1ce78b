"""The FastAPI backend behind Serve's ingress: tokens, health and the voice page."""
