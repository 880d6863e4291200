"""The mails that auth has sent, where it keeps them as files."""

import re
from email import message_from_bytes, policy
from pathlib import Path

from tests.waiting import eventually


class Mails:
    """The folder that auth mails into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def texts(self, email: str, subject: str) -> list[str]:
        """Of the mails to an address, in their order."""
        files = sorted(self.folder.glob("*.eml"))
        mails = [message_from_bytes(file.read_bytes(), policy=policy.default) for file in files]
        return [mail.get_content() for mail in mails if mail["To"] == email and subject in mail["Subject"]]

    def tokens(self, email: str, subject: str) -> list[str]:
        """The same for the tokens in them; "" for one without a token."""
        found = [re.search(r"mt_[\w-]+", text) for text in self.texts(email, subject)]
        return [token[0] if token else "" for token in found]

    async def token(self, email: str, subject: str, number: int = 1) -> str:
        """Of the so-manieth mail, as soon as it is there."""

        async def arrived() -> list[str]:
            tokens = self.tokens(email, subject)
            return tokens if len(tokens) >= number else []

        return (await eventually(arrived, what=f"mail {number} '{subject}'"))[number - 1]
