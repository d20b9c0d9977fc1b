"""Errors of logins. `api.gotrue.errors` translates them into GoTrue's error codes."""

from api.http.problems import Forbidden, Invalid, Problem, Unauthorized


class WrongCredentials(Unauthorized):
    """401: the address or the password is wrong. Both get the same text, after about the same time."""

    def __init__(self) -> None:
        super().__init__("The email or the password is wrong", scheme="Bearer")


class Delayed(Problem):
    """429: too many wrong passwords for this address. Until the delay ends, the right password is refused too."""

    def __init__(self, seconds: int) -> None:
        detail = f"Too many wrong passwords for this account: try again in {seconds} s"
        super().__init__(429, detail, headers={"Retry-After": str(seconds)})


class RegistrationClosed(Forbidden):
    """403: users cannot register by themselves."""

    def __init__(self) -> None:
        super().__init__("Registration is closed")


class RefreshRefused(Problem):
    """400: the refresh token is unknown, or was used already."""

    def __init__(self, reused: bool = False) -> None:
        super().__init__(400, "The refresh token was used already" if reused else "There is no such refresh token")
        self.reused = reused


class SamePassword(Invalid):
    """400: the new password is the present one."""

    def __init__(self) -> None:
        message = "the same as the present one"
        super().__init__(f"password: {message}", [{"field": "password", "message": message}])


class ManagedElsewhere(Forbidden):
    """403: the account belongs to an external issuer, where the user has to make this change."""

    def __init__(self) -> None:
        super().__init__("This account is managed by the issuer of its token")
