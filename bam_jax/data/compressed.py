"""Opens files as bytes, and decompresses compressed files during reading.

The compression is detected from a file's first bytes, not from its name.
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

# Errors that the libraries raise for damaged content. ValueError is pyarrow's.
_DAMAGE = (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)


def open_binary(path: Path) -> io.BufferedReader:
  """Opens a file for reading bytes; a compressed file is decompressed.

  Content that was compressed twice is decompressed only once. Reading damaged
  content raises a `UserError`.

  Raises:
    errors.UserError: the decompression needs a package that is not installed.
    OSError: the file cannot be opened.
  """
  file = path.open('rb')
  try:
    head = file.peek(foreign.HEAD_BYTES)
    name = foreign.compression(head)
    if name is None:
      return file
    readers = {'gzip': gzip.open, 'bzip2': bz2.open, 'xz': lzma.open}
    if name in readers:
      source = readers[name](file)
    else:
      what, remedy = foreign.describe(head, str(path))
      if errors.absent(['pyarrow']):
        raise errors.UserError(
          f"{path}: is {what}; pip install 'bam-jax[arrow]' to read it, or"
          f' {remedy}'
        )
      import pyarrow as pa

      source = pa.CompressedInputStream(pa.PythonFile(file, 'r'), 'zstd')
    return io.BufferedReader(_Source(file, source, str(path), name))
  except BaseException:
    file.close()
    raise


class _Source(io.RawIOBase):
  """Reads decompressed bytes; raises a `UserError` if the file is damaged.

  Closing it closes `source`, which decompresses, and the compressed file.
  """

  def __init__(self, file: BinaryIO, source: BinaryIO, path: str, name: str):
    super().__init__()
    self._file = file
    self._source = source
    self._path = path
    self._name = name

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
      self._file.close()
    super().close()
