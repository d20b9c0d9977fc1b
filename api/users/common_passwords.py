"""Tells passwords that are guessed early: common ones, and simple variants of them (zxcvbn, Wheeler, USENIX 2016)."""

import re
from collections.abc import Sequence

MIN_GUESSES = 1_000_000
"""Below it zxcvbn calls a password very guessable (score 1)."""
MAX_JUDGED = 16
"""Characters that are judged at once, because zxcvbn needs 9 ms for 16, and 1.2 s for 64. A longer password is common
where both its beginning and its end are."""
_REPEATED = re.compile(r"(.{1,32}?)\1+", re.DOTALL)


def is_common(password: str, about: Sequence[str] = ()) -> bool:
    """Whether somebody guesses the password in less than `MIN_GUESSES` attempts.

    about: texts that are known of the user, such as the address. They and simple variants of them are common too.
    """
    from zxcvbn import matching, scoring  # its word lists take 60 ms and some memory, which not every process needs

    words = (part for text in about for part in (text, text.partition("@")[0], *re.split(r"[^\w]+", text)))
    known = [word.lower() for word in words if len(word) > 2]
    if password.lower() in known:
        return True
    dictionaries = {**matching.RANKED_DICTIONARIES, "user_inputs": matching.build_ranked_dict(known)}
    repeated = _REPEATED.fullmatch(password)
    judged = repeated[1] * 2 if repeated else password

    def guesses(part: str) -> float:
        return float(scoring.most_guessable_match_sequence(part, matching.omnimatch(part, dictionaries))["guesses"])

    return all(guesses(part) < MIN_GUESSES for part in {judged[:MAX_JUDGED], judged[-MAX_JUDGED:]})
