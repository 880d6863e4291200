"""A canary that flies as a process of its own, and what it says of itself."""

import asyncio

from pulsegate.canary import new_key
from pulsegate.observation import fetched
from tests.e2e.api import PASSWORD
from tests.kubelet import Cluster, RunningPod
from tests.waiting import eventually


def sees_everything_once(operations: str) -> bool:
    """Whether it has seen what it has sent; fails where something is lost or double."""
    status, told = fetched(f"{operations}/metrics")
    if status != 200:
        return False
    assert "pulsegate_canary_lost 0.0" in told, told
    assert "pulsegate_canary_double 0.0" in told, told
    return "pulsegate_canary_seen 0.0" not in told


async def finds_everything_once(cluster: Cluster, gateway: RunningPod, *, secret: str, key: str) -> None:
    """Makes its key where a gateway runs, puts it into a Secret, and lets it fly for a while."""
    door = f"http://{gateway.address}:{gateway.port('public')}"
    made = await asyncio.to_thread(new_key, door, "canary@example.com", PASSWORD)
    cluster.secrets[secret] = {**cluster.secrets.get(secret, {}), key: made}
    (canary,) = cluster.place([pod for pod in cluster.rendered.services() if pod.component == "canary"])
    canary.start()
    await asyncio.to_thread(canary.wait_ready)
    operations = f"http://{canary.address}:{canary.port('operations')}"

    async def seen() -> bool:
        return await asyncio.to_thread(sees_everything_once, operations)

    await eventually(seen, within_seconds=30, what="the canary sees what it has sent")
    assert canary.stop() == 0
