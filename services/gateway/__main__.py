"""Runs the gateway: `python -m services.gateway`."""

from chassis import runner
from services.gateway.app import running
from services.gateway.settings import Settings

if __name__ == "__main__":
    runner.run("gateway", Settings, running)
