"""The exceptions whose message is all that a user needs to see."""

_LONGEST = 1000


class _OneLineError(Exception):
  """An error that `bam_jax.main` prints as one line, without a traceback."""

  def __init__(self, message: str):
    """Takes a message that may quote a file; it stays one line of some length.

    What does not print, such as a newline or a terminal's escape, is spelt
    out, and of a long message beginning and end are kept.
    """
    if len(message) > _LONGEST:
      half = _LONGEST // 2
      message = f'{message[:half]} … {message[-half:]}'
    super().__init__(
      ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode()
        for c in message
      )
    )


class UserError(_OneLineError):
  """A mistake of the user's, told in one line: where, what, how to mend it.

  `bam_jax.main` exits with status 2, which no launcher repeats. Anything that
  escapes and is neither this nor `RetryError` is a bug and keeps its traceback.
  """


class RetryError(_OneLineError):
  """A failure that is no mistake of the user's and may not come again.

  A process was killed, another machine is gone, a store does not answer: the
  same command goes on, without a change. `bam_jax.main` exits with status 75,
  which launchers repeat. What would only come again, such as a full disk, is a
  `UserError`.
  """
