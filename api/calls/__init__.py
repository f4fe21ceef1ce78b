"""Calls as the API handles them: how one begins, is followed, and comes to an end."""
