"""Every metric that auth exposes beyond the chassis's own."""

from prometheus_client import Counter, Gauge, Histogram

SIGN_UPS = Counter("pulsegate_auth_sign_ups_total", "Accounts made.")
SIGN_INS = Counter(
    "pulsegate_auth_sign_ins_total",
    "Sign-ins by `result`: `ok`, or the error's code in lower case.",
    ["result"],
)
PASSWORD_CHANGES = Counter(
    "pulsegate_auth_password_changes_total",
    "Passwords replaced, by `way`: `changed` (with the present one) or `reset` (with a mailed token).",
    ["way"],
)
MAILS = Counter(
    "pulsegate_auth_mails_total",
    "Mails by `purpose` and `result`: `sent`, `unwanted` (no such account, its token is void, or it can have no mail),"
    " `failed` (tried again later), `refused` (by the server, for good) or `given_up` (after a day).",
    ["purpose", "result"],
)
REFRESHES = Counter(
    "pulsegate_auth_refreshes_total",
    "Refresh tokens presented, by `result`: `rotated`, `repeated` (a spent token within its grace), `reused` (the"
    " family was revoked) or `refused` (unknown, expired or revoked).",
    ["result"],
)
VERDICTS = Counter(
    "pulsegate_auth_verdicts_total",
    "Answers about a credential, by `credential` (`api_key`, `access_token`, `provisioning_token`) and `result` (`ok`"
    " or the error's code).",
    ["credential", "result"],
)
PASSWORDS_PENDING = Gauge(
    "pulsegate_auth_passwords_pending",
    "Passwords being judged, hashed or compared, and those waiting for a thread.",
)
PASSWORD_SECONDS = Histogram(
    "pulsegate_auth_password_duration_seconds",
    "Time from asking for a password to be judged, hashed or compared to the answer, waiting included.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
PASSWORDS_TURNED_AWAY = Counter(
    "pulsegate_auth_passwords_turned_away_total",
    "Passwords that found the queue full, or were not done in time.",
)
FEED_REVISION = Gauge("pulsegate_auth_feed_revision", "The newest revision that this process has read.")
FEED_STREAMS = Gauge("pulsegate_auth_feed_streams", "Streams that watch credentials in this process.")
FEED_POLLS = Counter(
    "pulsegate_auth_feed_polls_total", "Readings of the feed, by `result`: `ok` or `failed`.", ["result"]
)
SIGNING_KEYS = Gauge("pulsegate_auth_signing_keys", "Signing keys that are published.")
SIGNING_KEY_AGE_SECONDS = Gauge(
    "pulsegate_auth_signing_key_age_seconds", "For how long the current key has been signing."
)
EXPIRED_ROWS = Counter(
    "pulsegate_auth_expired_rows_deleted_total",
    "Rows deleted after their time, by `table`.",
    ["table"],
)
AUDIT_HEADS_REFUSED = Counter(
    "pulsegate_auth_audit_heads_refused_total",
    "Heads of audit chains that were not signed since their chain does not go on from what was signed before.",
)
AUDIT_HEADS_SIGNED = Counter(
    "pulsegate_auth_audit_heads_signed_total",
    "Heads of audit chains that were signed.",
)
AUDIT_HEADS_LOOKED_AT = Gauge(
    "pulsegate_auth_audit_heads_signed_timestamp_seconds",
    "When this process last went through all audit chains that had grown, and signed their heads; Unix time.",
)
AUDIT_VERIFIED = Gauge(
    "pulsegate_auth_audit_verified_timestamp_seconds",
    "When this process last verified every audit chain from its beginning, daily; Unix time.",
)
AUDIT_FAULTS = Gauge(
    "pulsegate_auth_audit_faults",
    "What that found: entries, heads and signatures that are not what was written. The log names them.",
)
SIGN_ON_FAILURES_WITHHELD = Counter(
    "pulsegate_auth_sign_on_failures_withheld_total",
    "Failed sign-ons through identity providers beyond what a tenant's audit log is told in an hour.",
)
KEYS_LEAKED = Counter(
    "pulsegate_auth_keys_leaked_total",
    "Secret keys that were reported as leaked, and revoked.",
)
