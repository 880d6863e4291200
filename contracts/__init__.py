"""Python generated from `proto/` by `make proto`: what services say to each other. Never edited."""
