"""Mails of a running suite, which keeps them in a folder."""

import re
from email import message_from_bytes, policy

from tests.suite_running import Suite
from tests.waiting import eventually


async def mailed_token(suite: Suite, email: str, subject: str) -> str:
    """The token in a mail to this address whose subject has these words; waits for it."""

    async def arrived() -> str:
        for file in (suite.data / "mails").glob("*.eml"):
            mail = message_from_bytes(file.read_bytes(), policy=policy.default)
            if mail["To"] == email and subject in mail["Subject"]:
                return str(re.findall(r"mt_[\w-]+", mail.get_content())[0])
        return ""

    return await eventually(arrived, what=f"a mail '{subject}'")
