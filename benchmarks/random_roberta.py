"""Makes a RoBERTa-base of random weights to time: `step_jax --size=FOLDER`.

  python -m benchmarks.random_roberta $GLUE_DIR roberta-base

Its byte-level BPE is trained on the texts of GLUE, to RoBERTa's own number of
tokens. Needs torch and transformers.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers
import transformers

from bam_jax.tasks import glue

_SPECIAL = ('<s>', '<pad>', '</s>', '<unk>', '<mask>')


def _lines(data: Path) -> Iterator[str]:
  for task in glue.TASKS.values():
    yield from (data / task.tables['train'].file).open(encoding='utf-8')


def make(data: Path, folder: Path) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  config = transformers.RobertaConfig(
    max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
  )
  bpe = tokenizers.Tokenizer(models.BPE())
  bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  trainer = trainers.BpeTrainer(
    vocab_size=config.vocab_size,
    special_tokens=[*_SPECIAL],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  bpe.train_from_iterator(_lines(data), trainer)
  bpe.model.save(str(folder))
  transformers.RobertaModel(config).save_pretrained(folder)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('data', type=Path, help='GLUE as TSV files')
  parser.add_argument('folder', type=Path)
  arguments = parser.parse_args()
  make(arguments.data, arguments.folder)


if __name__ == '__main__':
  main()
