"""Makes golden/tokenizers.json: the ids that transformers gives.

Needs transformers, which the tests do not:

  PYTHONPATH=. python tests/data/make_tokenizer_golden.py

For each directory of `tokenizer_cases.READ` it holds the ids of some texts, and
a sha256 of the ids of all.
"""

import json
from pathlib import Path
import tempfile

import transformers

from tests.data import tokenizer_cases

FILE = Path(__file__).parent / 'golden' / 'tokenizers.json'
SHOWN = 20


def main() -> None:
  """Writes the file."""
  texts = tokenizer_cases.texts()
  result = {'transformers': transformers.__version__}
  for name, maker in tokenizer_cases.READ.items():
    with tempfile.TemporaryDirectory() as directory:
      tokenizer_cases.make(maker, Path(directory))
      tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
      ids = [tokenizer(text)['input_ids'] for text in texts]
    result[name] = {'first': ids[:SHOWN], 'sha256': tokenizer_cases.digest(ids)}
  lines = [f'{json.dumps(k)}: {json.dumps(v)}' for k, v in result.items()]
  FILE.write_text('{\n' + ',\n'.join(lines) + '\n}\n')


if __name__ == '__main__':
  main()
