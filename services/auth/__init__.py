"""auth owns who people are, what they may do, and what stands behind a credential.

It owns the schema `auth`: users, their passwords and second factors, tenants, memberships, invitations, projects, API
keys, sessions and their refresh tokens, mails that wait to be sent, the keys that sign tokens, and the feed of changes.
The gateway calls it for every management route and whenever it meets a credential that it does not know; every service
takes its public keys from it; codegen asks it for a publishable key's text.

The path of one request, `CreateKey`: `grpc_api/accounts.py` reads the message, `operations/keys.py` opens a transaction
with the caller's user id, finds out by `operations/access.py` whether the caller may, makes the key by `keys.py`, has
`storage/keys.py` insert it, and the message goes back. A change that voids a credential is announced to the feed in the
same transaction; `feed.py` sends it to everybody who watches.
"""
