"""The one exception that stands for a mistake of the user's."""

_LONGEST = 1000


class UserError(Exception):
  """A mistake of the user's, told in one line: where, what, how to mend it.

  `bam_jax.main` prints the message without a traceback and exits with status
  2. Anything else that escapes is a bug and keeps its traceback.
  """

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
