"""`parley bench`: every figure of docs/performance.md, measured again by one command each."""
