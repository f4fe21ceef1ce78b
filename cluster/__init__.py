"""The composition root: profiles, the `parley` command, and what starts and stops a cluster."""
