"""auth owns who people are, what they may do, and what stands behind a credential.

It owns the schema `auth`: users, their passwords and second factors, tenants, memberships, invitations, identity
providers and whom they brought, projects, API keys, sessions and their refresh tokens, mails that wait to be sent, the
keys that sign tokens, the audit log, and the feed of changes. The gateway calls it for what people manage of these, and
follows the feed; it and what runs inside ask about credentials that they do not know; gateway, config, codegen and
receiver take its public keys from it; config leaves entries in the audit log, and asks which projects were deleted.
`callers.py` has it method by method.

The path of one request, `CreateKey`: `grpc_api/accounts.py` reads the message, `operations/keys.py` opens a transaction
with the caller's user id, finds out by `operations/access.py` whether the caller may, makes the key by `keys.py`, has
`storage/keys.py` insert it, and the message goes back. A change that voids a credential is announced to the feed in the
same transaction; `feed.py` sends it to everybody who watches.

Beside the files that each service has (docs/path-of-a-request.md):

    tokens and keys
        tokens.py                 access tokens, principals, refresh tokens, tokens that travel by mail
        signing_keys.py           the keys that sign them, and their rotation
        keys.py                   API keys: what one looks like, and the making of one
        key_usage.py              when keys were used last, noted in batches
        master_key.py             encrypts what is secret at rest
        feed.py                   tells who watches which credentials have changed
    signing in
        passwords.py              bcrypt, on threads
        password_rules.py         which passwords are refused
        one_time_codes.py         the codes of second factors
    signing in through an identity provider
        identity_providers.py     whom a tenant takes from a provider, as what, and whom it vouches for
        provider_settings.py      what is set of a provider, of each kind
        conversations.py          what providers are asked: so many at a time, so long
        outbound.py               requests to addresses that a tenant chose
        sign_on_secrets.py        what must not be guessed of a sign-on under way
        failed_sign_ons.py        how many failures a tenant is told
        oidc.py                   OpenID Connect
        discovery.py              what its providers say of themselves
        saml.py                   SAML 2.0
        saml_metadata.py          what its providers say of themselves, and what they are to know of us
        saml_documents.py         its XML, read harmlessly, and its signatures
        saml_assertions.py        what an answer must be for somebody to be signed in by it
        signing_certificates.py   the certificates by which answers and directories are believed
        directories.py            passwords that an LDAP directory takes
        ldap.py                   connections to directories
        ldap_frames.py            where one message of a directory ends
        ldap_filters.py           searches with places for what somebody types
    audit log
        audit_chain.py            how entries are tied together
        audit_heads.py            signs where each chain ends
        audit_watch.py            verifies the chains daily
        audit_verification.py     the command `verify-audit`
        audit_pruning.py          the command `prune-audit`
    mails
        mails.py                  what is mailed to whom, and the text
        outbox.py                 mails that wait to be sent
        mailers.py                how a mail leaves
"""
