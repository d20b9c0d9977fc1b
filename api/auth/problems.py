"""What can be wrong about a login. The routes of GoTrue have their own words for each: see `api.gotrue.errors`."""

from api.http.problems import Forbidden, Invalid, Problem, Unauthorized


class WrongCredentials(Unauthorized):
    """401: whatever was wrong, in the same words and in about the same time."""

    def __init__(self) -> None:
        super().__init__("The email or the password is wrong", scheme="Bearer")


class Delayed(Problem):
    """429: too many wrong passwords for this address, right ones included until the time is over."""

    def __init__(self, seconds: int) -> None:
        detail = f"Too many wrong passwords for this account: try again in {seconds} s"
        super().__init__(429, detail, headers={"Retry-After": str(seconds)})


class RegistrationClosed(Forbidden):
    """403: nobody may register by themselves."""

    def __init__(self) -> None:
        super().__init__("Registration is closed")


class RefreshRefused(Problem):
    """400: a refresh token that is none, or was good once."""

    def __init__(self, reused: bool = False) -> None:
        super().__init__(400, "The refresh token was used already" if reused else "There is no such refresh token")
        self.reused = reused


class SamePassword(Invalid):
    """400: a change of the password that changes nothing."""

    def __init__(self) -> None:
        message = "the same as the present one"
        super().__init__(f"password: {message}", [{"field": "password", "message": message}])


class ManagedElsewhere(Forbidden):
    """403: what a user of another issuer has to do there."""

    def __init__(self) -> None:
        super().__init__("This account is managed by the issuer of its token")
