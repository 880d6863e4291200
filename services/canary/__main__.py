"""Runs the canary: `python -m services.canary`."""

from chassis import runner
from services.canary.app import running
from services.canary.settings import Settings

if __name__ == "__main__":
    runner.run("canary", Settings, running)
