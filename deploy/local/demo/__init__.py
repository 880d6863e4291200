"""The demo: a tenant with three metrics, its generated clients with real traffic, and the numbers read back.

api.py               calls of the public HTTP interface
project.py           the demo's tenant, definitions and keys; made once, found again later
clients.py           runs the generated clients, each in a process of its own
server_traffic.py    what the generated Python client is used for
browser_traffic.mjs  what the generated browser client is used for, under Node.js
totals.py            what was sent beside what Prometheus answers
story.py             the whole of it, in order
"""
