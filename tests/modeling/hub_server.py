"""The hub's addresses for models on this machine, as `HF_ENDPOINT` gives."""

from collections.abc import Mapping
import hashlib
import http.server
import json
from pathlib import Path
import re
import threading
from typing import Self

_API = re.compile(r'/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree)/\w+)?')
_FILE = re.compile(r'/([\w.-]+/[\w.-]+)/resolve/\w+/(.+)')


class HubServer:
  """Models of some directories, as a context manager.

  Attributes:
    endpoint: its address.
    status: what every request is answered with, unless it is 200.
    asked: paths of the requests for files that were answered with a body.
  """

  def __init__(self, models: Mapping[str, Path]):
    """Serves nothing yet; `models` is TEAM/NAME -> directory."""
    self.status = 200
    self.asked: list[str] = []
    hub = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = 'HTTP/1.1'

      def do_GET(self) -> None:
        self.send(*hub._answer(self.path.partition('?')[0]))

      do_HEAD = do_GET

      def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
          self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command == 'GET':
          self.wfile.write(body)
          if 'ETag' in headers:
            hub.asked.append(self.path.rpartition('/')[2])

      def log_message(self, *unused: object) -> None:
        pass

    self._models = models
    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self._server.daemon_threads = True
    self.endpoint = f'http://127.0.0.1:{self._server.server_port}'

  def __enter__(self) -> Self:
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.02,)
    )
    self._thread.start()
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()

  def _answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, as the hub gives them."""
    api, file = _API.fullmatch(path), _FILE.fullmatch(path)
    name = (api or file or [None, ''])[1]
    if self.status != 200:
      return self.status, {}, b''
    if name not in self._models:
      # Of one who has not logged in, so that private names stay private.
      return 401, {'X-Error-Code': 'RepoNotFound'}, b''
    files = {
      str(path.relative_to(self._models[name])): path.read_bytes()
      for path in sorted(self._models[name].rglob('*'))
      if path.is_file()
    }
    commit = hashlib.sha1(repr(files).encode()).hexdigest()
    if file and file[2] in files:
      content = files[file[2]]
      etag = f'"{hashlib.sha256(content).hexdigest()}"'
      return 200, {'ETag': etag, 'X-Repo-Commit': commit}, content
    if not api:
      return 404, {'X-Error-Code': 'EntryNotFound'}, b''
    answer: object = {
      'id': name,
      'sha': commit,
      'siblings': [{'rfilename': file} for file in files],
    }
    if api[2] == 'tree':
      answer = [
        {'type': 'file', 'path': path, 'size': len(content), 'oid': '0' * 40}
        for path, content in files.items()
      ]
    return (
      200,
      {'Content-Type': 'application/json'},
      json.dumps(answer).encode(),
    )
