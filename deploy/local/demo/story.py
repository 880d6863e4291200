"""Signs up, defines, generates, sends, reads back, and says whether the numbers agree."""

import json

import aiohttp

from deploy.local.demo.api import Api
from deploy.local.demo.clients import generate, run_browser, run_python
from deploy.local.demo.ledger import Ledger
from deploy.local.demo.project import EMAIL, DemoProject, demo_project
from deploy.local.demo.totals import Sample, agree, compare, table, totals_after, totals_before
from deploy.local.progress import say, step
from deploy.local.stack import Stack

_ORDERS = 2000

#: The series that the traffic adds to.
_SERIES = [
    Sample(name=name, labels={"source": source, **plan}, value=0)
    for source in ("server", "browser")
    for name, plan in (
        ("demo_orders_total", {"plan": "free"}),
        ("demo_orders_total", {"plan": "pro"}),
        ("demo_checkout_duration_seconds_count", {}),
        ("demo_checkout_duration_seconds_sum", {}),
    )
]


async def tell(stack: Stack) -> bool:
    """The whole demo on a running stack; whether every number agrees. Raises ApiError, TrafficFailed."""
    folder = stack.data.root / "demo"
    folder.mkdir(exist_ok=True)
    async with aiohttp.ClientSession() as session:
        with step(f"Signing {EMAIL} in, defining metrics, making keys"):
            project = await demo_project(Api(session, stack.address), stack.backing.secrets, folder)
        with step("Generating the Python and the browser client"):
            clients = await generate(project, folder)
        ledger = Ledger(folder / "sent.json")
        with step("Looking up what earlier runs have sent"):
            before = ledger.open() or await totals_before(project.program, _SERIES)
        with step(f"Taking {_ORDERS} orders with each client"):
            sent = [
                *await run_python(clients.python, project.keys.secret, _ORDERS),
                *await run_browser(clients.browser, _ORDERS),
            ]
        totals = totals_after(before, sent)
        ledger.close(totals)
        with step("Asking Prometheus"):
            lines = await compare(project.program, totals)
    say(f"\n{table(lines)}\n")
    say("Every number agrees." if agree(lines) else "The numbers do not agree.")
    _say_how_to_go_on(stack, project)
    return agree(lines)


def _say_how_to_go_on(stack: Stack, project: DemoProject) -> None:
    account = json.dumps({"email": EMAIL, "password": project.password})
    say("\nAn access token of the demo's owner, for everything below /api/v1:")
    say(f"  curl -s {stack.address}/api/v1/auth/signin -H 'Content-Type: application/json' -d '{account}'\n")
    say(f"Project     {project.id}")
    say(f"Clients     {stack.data.root / 'demo'}")
