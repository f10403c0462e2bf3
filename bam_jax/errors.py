"""The one exception that stands for a mistake of the user's."""


class UserError(Exception):
  """A mistake of the user's, told in one line: where, what, how to mend it.

  `bam_jax.main` prints the message without a traceback and exits with status
  2. Anything else that escapes is a bug and keeps its traceback.
  """
