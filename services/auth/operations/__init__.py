"""The use cases of auth, one async method each; every method owns its transaction."""
