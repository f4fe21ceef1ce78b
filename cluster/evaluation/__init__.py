"""Spoken cases with expectations, over real calls or straight at one model: `parley eval`."""
