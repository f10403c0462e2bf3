"""Opens files as bytes; compressed ones are decompressed while they are read.

What a file is follows from its first bytes, not from its name.
"""

import bz2
import gzip
import io
import lzma
from pathlib import Path
from typing import BinaryIO
import zlib

from bam_jax import errors
from bam_jax.data import foreign

# What the libraries raise for damaged content, pyarrow a ValueError.
_DAMAGE = (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)


def open_binary(path: Path) -> io.BufferedReader:
  """Opens a file, and decompresses it if it is compressed.

  Raises:
    errors.UserError: its compression needs a package that is not installed.
    OSError: the file cannot be opened.
  """
  file = path.open('rb')
  try:
    content = decompress(file, str(path))
    if content is not file:
      content.raw.closes = file
    return content
  except BaseException:
    file.close()
    raise


def decompress(file: io.BufferedReader, path: str) -> io.BufferedReader:
  """Returns an open file itself, or a file of its decompressed content.

  Reading from the result raises a `UserError`, with `path`, where the content
  is damaged. Closing it leaves the file open. What is compressed twice is
  decompressed once. The file is at its beginning; it may be a pipe.

  Raises:
    errors.UserError: its compression needs a package that is not installed.
  """
  head = file.peek(foreign.HEAD_BYTES)
  name = foreign.compression(head)
  if name is None:
    return file
  readers = {'gzip': gzip.open, 'bzip2': bz2.open, 'xz': lzma.open}
  if name in readers:
    source = readers[name](file)
  else:
    what, remedy = foreign.describe(head, path)
    if errors.absent(['pyarrow']):
      raise errors.UserError(
        f"{path}: is {what}; pip install 'bam-jax[arrow]' to read it, or"
        f' {remedy}'
      )
    import pyarrow as pa

    source = pa.CompressedInputStream(pa.PythonFile(file, 'r'), 'zstd')
  return io.BufferedReader(_Source(source, path, name))


class _Source(io.RawIOBase):
  """Reads a decompressing file; reports damaged content as a mistake.

  Attributes:
    closes: the file to close with this one, if any.
  """

  def __init__(self, source: BinaryIO, path: str, name: str):
    super().__init__()
    self._source = source
    self._path = path
    self._name = name
    self.closes: BinaryIO | None = None

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: memoryview) -> int:
    try:
      content = self._source.read(len(buffer))
    except _DAMAGE as error:
      raise errors.UserError(
        f'{self._path}: is compressed by {self._name}, but damaged'
        f' ({error}); get the file again'
      ) from None
    buffer[: len(content)] = content
    return len(content)

  def close(self) -> None:
    if not self.closed:
      self._source.close()
      if self.closes is not None:
        self.closes.close()
    super().close()
