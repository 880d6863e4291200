"""The canary: counts what it sends through the public door, reads it back, and compares, for ever.

It knows what a client knows: an address and a key. What it was told is accepted must be in the answer to a query, once:
nothing missing after its patience, nothing too much. Two series take turns, so that each stands still before it is
compared, and a loss is not made up by what is sent later. It owns a file with what it has sent, so that
a restart, of the canary or of anything else, does not make it forget.
"""
