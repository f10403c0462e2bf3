"""Makes a small tokenizer in the layout of ModernBERT's, without weights."""

from collections.abc import Sequence
import json
from pathlib import Path

import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import processors
from tokenizers import trainers

from tests.data import tokenizer_cases

_SPECIAL = ['[UNK]', '[CLS]', '[SEP]', '[PAD]', '[MASK]']
_SPACES = ['  ', '   ']  # Tokens of several spaces are added, not learnt.


def make(path: Path, more_texts: Sequence[str] = ()) -> Path:
  """Writes tokenizer.json and tokenizer_config.json, trained on some texts."""
  path.mkdir(parents=True, exist_ok=True)
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=500,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  texts = [*tokenizer_cases.texts(), *more_texts]
  tokenizer.train_from_iterator(texts, trainer)
  # They have the highest ids, after those of the model.
  tokenizer.add_tokens(
    [tokenizers.AddedToken(text, normalized=True) for text in _SPACES]
  )
  tokenizer.add_special_tokens(
    [
      tokenizers.AddedToken(text, lstrip=text == '[MASK]', special=True)
      for text in _SPECIAL
    ]
  )
  tokenizer.post_processor = processors.TemplateProcessing(
    single='[CLS]:0 $A:0 [SEP]:0',
    pair='[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1',
    special_tokens=[
      (text, tokenizer.token_to_id(text)) for text in ('[CLS]', '[SEP]')
    ],
  )
  tokenizer.save(str(path / 'tokenizer.json'))
  settings = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'model_input_names': ['input_ids', 'attention_mask'],
    'model_max_length': 8192,
    'clean_up_tokenization_spaces': True,
    **{f'{text[1:-1].lower()}_token': text for text in _SPECIAL},
  }
  (path / 'tokenizer_config.json').write_text(json.dumps(settings))
  (path / 'config.json').write_text('{"model_type": "modernbert"}')
  return path
