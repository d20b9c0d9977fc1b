"""Keep the garbage collector away from what a server holds for as long as it lives.

A full collection walks every container of the process. Libraries and models are a million of them that never go away,
and a busy server is made to walk them about once a second: measured, 130 ms in which nothing is answered.
"""

import gc


def settle() -> None:
    """Collect once, then take all that is left out of later collections. To be called again after a large load."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
