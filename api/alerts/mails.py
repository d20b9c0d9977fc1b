"""Sends mails by SMTP, in threads of their own: the standard library's client blocks."""

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage

from configs.mail import MailSettings

OPERATION_SECONDS = 10.0
"""That each answer of the server may take."""
MAIL_SECONDS = 30.0
"""That a mail may take in all. It is shorter than the first pause between two attempts."""

_SENDING = ThreadPoolExecutor(4, thread_name_prefix="mail")


class MailFailedError(Exception):
    """The server did not take the mail. The message names neither addresses nor credentials."""


async def send_mail(settings: MailSettings, mail: EmailMessage, recipients: Sequence[str]) -> int:
    """Send a mail, and return how many recipients the server refused. Raises MailFailedError where it refused all."""
    if settings.host is None:
        raise MailFailedError("this installation sends no mails: SMTP_HOST is not set")
    try:
        async with asyncio.timeout(MAIL_SECONDS):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(_SENDING, _send, settings, settings.host, mail, recipients)
    except TimeoutError as error:
        raise MailFailedError(f"the mail server took more than {MAIL_SECONDS:g} s") from error
    except smtplib.SMTPResponseException as error:
        raise MailFailedError(f"the mail server answered {error.smtp_code} ({type(error).__name__})") from error
    except OSError as error:  # of the network, of TLS, and all others of smtplib
        raise MailFailedError(f"the mail server was not reached or refused ({type(error).__name__})") from error


def _send(settings: MailSettings, host: str, mail: EmailMessage, recipients: Sequence[str]) -> int:
    context = ssl.create_default_context()
    server = (
        smtplib.SMTP_SSL(host, settings.port, timeout=OPERATION_SECONDS, context=context)
        if settings.tls == "tls"
        else smtplib.SMTP(host, settings.port, timeout=OPERATION_SECONDS)
    )
    with server:
        if settings.tls == "starttls":
            server.starttls(context=context)
        if settings.user is not None:
            server.login(settings.user, settings.password.get_secret_value() if settings.password else "")
        return len(server.send_message(mail, settings.sender, recipients))
