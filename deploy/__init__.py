"""Ways to run Pulsegate. `local/` is the embedded default: everything on one machine, without containers."""
