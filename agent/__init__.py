"""The call plane: LiveKit jobs become streaming requests on the `agent` deployment, one for each call."""
