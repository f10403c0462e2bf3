"""Makes tokenizers of the families that have no WordPiece, without weights.

They are trained on `tokenizer_cases.texts` and saved by transformers.
"""

from collections.abc import Sequence
import json
from pathlib import Path

import tokenizers
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import trainers
import transformers

from tests.data import tokenizer_cases

_SPECIAL = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
_UNIGRAM = {
  'xlm-roberta': transformers.XLMRobertaTokenizer,
  'camembert': transformers.CamembertTokenizer,
  'deberta-v2': transformers.DebertaV2Tokenizer,
}
_SPECIAL_OF_DEBERTA = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', '[MASK]']
MODEL_TYPES = ('roberta', *_UNIGRAM)


def make(model_type: str, path: Path, more_texts: Sequence[str] = ()) -> Path:
  """Writes a directory with a tokenizer and the type of its model."""
  path.mkdir(parents=True, exist_ok=True)
  (path / 'config.json').write_text(json.dumps({'model_type': model_type}))
  texts = [*tokenizer_cases.texts(), *more_texts]
  if model_type == 'roberta':
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
      vocab_size=500,
      special_tokens=_SPECIAL,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    )
    model = _train(tokenizer, trainer, texts)
    made = transformers.RobertaTokenizer(
      vocab=model['vocab'], merges=[tuple(pair) for pair in model['merges']]
    )
  else:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
      [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    special = _SPECIAL
    if model_type == 'deberta-v2':
      special = _SPECIAL_OF_DEBERTA
    trainer = trainers.UnigramTrainer(
      vocab_size=3000,
      special_tokens=special,
      unk_token=special[3],
      show_progress=False,
    )
    model = _train(tokenizer, trainer, texts)
    made = _UNIGRAM[model_type](vocab=[tuple(pair) for pair in model['vocab']])
  made.save_pretrained(path)
  return path


def _train(
  tokenizer: tokenizers.Tokenizer,
  trainer: trainers.Trainer,
  texts: Sequence[str],
) -> dict[str, object]:
  tokenizer.train_from_iterator(texts, trainer)
  return json.loads(tokenizer.to_str())['model']
