"""What the gateway asks of the services behind it, each over an `Upstream`, and of Prometheus."""
