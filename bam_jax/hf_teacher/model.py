"""Runs a Hugging Face classifier on texts, in PyTorch.

This module imports torch only inside functions, because torch is optional.
"""

from collections.abc import Iterator, Mapping, Sequence
import hashlib
import json

import numpy as np

from bam_jax import errors
from bam_jax import escape
from bam_jax.modeling import weight_sources
from bam_jax.runtime import progress as progress_lib

# Number of batches whose rows are tokenised together and sorted by length.
_BATCHES_AT_ONCE = 32

# A row's two texts; the second is None if the task's rows have one text.
Texts = tuple[str, str | None]


class Model:
  """A classifier with its tokenizer, ready to predict.

  Attributes:
    names: names of the outputs, from `id2label` in config.json.
    problem: `problem_type` in config.json; None if config.json has none.
    has_padding: whether the tokenizer has a padding token, so that rows of
      different lengths can be in one batch.
  """

  def __init__(
    self, place: str, device: str | None, dtype: str, max_length: int
  ):
    """Loads the classifier.

    Args:
      place: a directory, or a name on the hub.
      device: name of a torch device; None: a GPU if there is one, else the CPU.
      dtype: dtype of the weights.
      max_length: highest number of tokens per row.

    Raises:
      errors.UserError: the classifier cannot be loaded, or has no trained head.
    """
    import torch
    import transformers

    where = f'--model={place}'
    place = _check_place(place, where)
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
      self._tokenizer = transformers.AutoTokenizer.from_pretrained(place)
      auto_class = transformers.AutoModelForSequenceClassification
      model, told = auto_class.from_pretrained(
        place, dtype=getattr(torch, dtype), output_loading_info=True
      )
    except (OSError, ValueError, RuntimeError, ImportError) as e:
      raise errors.UserError(
        f'{where}: cannot be loaded: {escape.one_line(e)}'
      ) from e
    missing = sorted(told['missing_keys'])
    if missing:
      raise errors.UserError(
        f'{where}: has no weights for {missing[0]}, which would be random;'
        ' give a model that was trained to classify'
      )
    try:
      self._model = model.to(device).eval()
    except (RuntimeError, AssertionError) as e:
      raise errors.UserError(
        f'--device={device}: {str(e).splitlines()[0]}'
      ) from e
    config = model.config
    self.names = [config.id2label[i] for i in range(config.num_labels)]
    self.problem = config.problem_type
    self.has_padding = self._tokenizer.pad_token is not None
    if config.pad_token_id is None:
      # Decoder models use this id to find the last token of each text.
      config.pad_token_id = self._tokenizer.pad_token_id
    # If a tokenizer has no limit, its `model_max_length` is a huge number.
    self._max_length = min(
      max_length,
      self._tokenizer.model_max_length,
      getattr(config, 'max_position_embeddings', max_length),
    )
    self._device = device
    self._dtype = dtype

  def digest(self, options: Mapping[str, object]) -> str:
    """Returns the hexadecimal sha256 of everything that affects the logits.

    This is the weights, the tokenizer, the maximum length, the dtype and
    `options`.
    """
    import torch

    result = hashlib.sha256()
    own = {'max_length': self._max_length, 'dtype': self._dtype}
    result.update(json.dumps({**options, **own}, sort_keys=True).encode())
    if self._tokenizer.is_fast:
      result.update(self._tokenizer.backend_tokenizer.to_str().encode())
    else:
      words = sorted(self._tokenizer.get_vocab().items())
      result.update(json.dumps(words).encode())
    for name, tensor in sorted(self._model.state_dict().items()):
      result.update(f'{name}{tuple(tensor.shape)}'.encode())
      data = tensor.detach().cpu().contiguous().reshape(-1)
      result.update(data.view(torch.uint8).numpy().tobytes())
    return result.hexdigest()

  def outputs(self, texts: Sequence[Texts], batch_size: int) -> np.ndarray:
    """Computes outputs, [n, num_outputs] float32, in the order of the texts."""
    import torch

    result = np.empty((len(texts), len(self.names)), np.float32)
    with (
      torch.inference_mode(),
      progress_lib.show('labels', len(texts), 'rows') as progress,
    ):
      for rows, values in self._predicted(texts, batch_size):
        result[rows] = values
        progress.advance(len(rows))
    return result

  def _predicted(
    self, texts: Sequence[Texts], batch_size: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields, for each batch, indices in `texts` and outputs of these texts.

    The longest rows come first, so that a batch size that is too large for the
    memory fails at once.
    """
    import torch

    order = np.argsort(
      [-len(a) - len(b or '') for a, b in texts], kind='stable'
    )
    at_once = batch_size * _BATCHES_AT_ONCE
    for first in range(0, len(order), at_once):
      some = order[first : first + at_once]
      rows = self._encode([texts[i] for i in some])
      by_tokens = sorted(
        range(len(rows)), key=lambda i: -len(rows[i]['input_ids'])
      )
      for begin in range(0, len(rows), batch_size):
        chosen = by_tokens[begin : begin + batch_size]
        batch = [rows[i] for i in chosen]
        if self.has_padding:
          inputs = self._tokenizer.pad(batch, return_tensors='pt')
        else:
          inputs = {
            key: torch.tensor([row[key] for row in batch]) for key in batch[0]
          }
        try:
          logits = self._model(
            **{key: value.to(self._device) for key, value in inputs.items()}
          ).logits
        except torch.OutOfMemoryError as e:
          raise errors.UserError(
            f'--batch_size={batch_size}: does not fit into the memory of'
            f' {self._device}; give a smaller number'
          ) from e
        yield some[chosen], logits.float().cpu().numpy()

  def _encode(self, texts: Sequence[Texts]) -> list[dict[str, list[int]]]:
    """Tokenises rows; returns the model's inputs, without padding."""
    second = [b for _, b in texts if b is not None] or None
    found = self._tokenizer(
      [a for a, _ in texts],
      second,
      truncation=True,
      max_length=self._max_length,
    )
    return [{key: found[key][i] for key in found} for i in range(len(texts))]


def _check_place(place: str, where: str) -> str:
  """Returns the path or name from which transformers can load a model.

  The model is looked up here because transformers retries many times if the hub
  cannot be reached, and because its error for a folder without a model is about
  the tokenizer.

  Raises:
    errors.UserError: `place` has no model.
  """
  path = weight_sources.find(place, weight_sources.CONFIG_FILES, where)
  if not (path / 'config.json').is_file():
    raise errors.UserError(
      f'{where}: holds no config.json; give a directory that save_pretrained'
      ' has written, or a name on the hub'
    )
  return str(path) if place.startswith(('package:', '~')) else place
