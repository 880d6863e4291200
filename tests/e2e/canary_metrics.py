"""What a canary that runs as a process says of itself."""

from pulsegate.observation import fetched


def sees_everything_once(operations: str) -> bool:
    """Whether it has seen what it has sent; fails where something is lost or double."""
    status, told = fetched(f"{operations}/metrics")
    if status != 200:
        return False
    assert "pulsegate_canary_lost 0.0" in told, told
    assert "pulsegate_canary_double 0.0" in told, told
    return "pulsegate_canary_seen 0.0" not in told
