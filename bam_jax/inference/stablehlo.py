"""Exports a trained model as a program that runs without this package.

The files are in DIR/TASK/ or, if the model has several tasks, in DIR/all/:
  program.jax_export  StableHLO for CPU, CUDA and TPU, written by `jax.export`
  weights.npz         the program's first argument: parameter name -> array
  tokenizer.json      the tokenizer, with tokenizer_config.json and, for
                      WordPiece, vocab.txt
  model.json          tasks, labels, maximum length, platforms
  README.md           a model card, with the complete code to predict a text

The program uses only XLA, without platform-specific kernels. Batch size and
length are symbolic, so JAX compiles the program again for each new combination
of batch size and length.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import flax.traverse_util
import jax
from jax import export as jax_export
import jax.numpy as jnp
import numpy as np

from bam_jax import errors
from bam_jax.data import features
from bam_jax.inference import card
from bam_jax.inference import export as export_lib
from bam_jax.modeling import families
from bam_jax.modeling import family
from bam_jax.modeling import heads as heads_lib
from bam_jax.tasks import task as task_lib

PLATFORMS = ('cpu', 'cuda', 'tpu')


def export(
  directory: Path,
  config: family.EncoderConfig,
  tokenizer: features.Tokenizer,
  params: Mapping[str, object],
  names: Sequence[str],
  tasks: task_lib.TaskTable,
  facts: card.Facts,
) -> None:
  """Writes the directory of one model; see `export.export` for arguments.

  Raises:
    errors.UserError: a file can't be written, or a task uses a bi-encoder.
  """
  chosen = [tasks[name] for name in names]
  for task in chosen:
    if task.is_bi_encoder:
      raise errors.UserError(
        f'--format=stablehlo: a bi-encoder reads the pairs of {task.name}, and'
        ' the exported programs take both texts as one input; export without'
        ' --format'
      )
  weights = flax.traverse_util.flatten_dict(
    {
      **params,
      'heads': {
        name: export_lib.head_params(params['heads'], name, tasks)
        for name in names
      },
    },
    sep='/',
  )
  shape = jax_export.symbolic_shape(
    'b, l', constraints=(f'l <= {config.max_positions}',)
  )
  tokens = jax.ShapeDtypeStruct(shape, jnp.int32)
  program = jax_export.export(
    jax.jit(_program(config, chosen)), platforms=PLATFORMS
  )(
    jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights),
    *(tokens, tokens, tokens),
  )
  about = {
    'jax': jax.__version__,
    'platforms': PLATFORMS,
    'max_length': facts.max_length,
    'max_positions': config.max_positions,
    'tasks': export_lib.define_outputs(chosen),
  }
  name = chosen[0].name if len(chosen) == 1 else export_lib.ALL
  texts = {
    'model.json': export_lib.to_json(about),
    'README.md': card.write(chosen, facts, config, jax.__version__),
  }
  with export_lib.new_directory(directory / name, texts) as unfinished:
    (unfinished / 'program.jax_export').write_bytes(program.serialize())
    np.savez(unfinished / 'weights.npz', **weights)
    export_lib.choose_tokenizer(tokenizer, chosen).save(unfinished)


def _program(
  config: family.EncoderConfig, tasks: list[task_lib.Task]
) -> Callable[..., dict[str, jax.Array]]:
  """Returns the function that `jax.export` exports.

  The function's arguments are the weights and three [b, l] int32 arrays: token
  ids, token types and a mask that is 0 at padding. It returns task -> logits,
  [b, c], or [b, l, c] if the task has outputs per token. It computes in float32
  without reduced precision on any platform.
  """
  of = families.FAMILIES[config.family]
  encoder, pooler = of.encoder(config, family.Compute()), of.pooler(config)

  def dense(x: jax.Array, layer: Mapping[str, jax.Array]) -> jax.Array:
    # The tests forbid implicit rank promotion in JAX.
    bias = layer['bias'].reshape((1,) * (x.ndim - 1) + (-1,))
    return x @ layer['kernel'] + bias

  def logits(
    weights: Mapping[str, jax.Array],
    input_ids: jax.Array,
    token_type_ids: jax.Array,
    attention_mask: jax.Array,
  ) -> dict[str, jax.Array]:
    params = flax.traverse_util.unflatten_dict(weights, sep='/')
    positions = jax.lax.broadcasted_iota(jnp.int32, input_ids.shape, 1)
    with jax.default_matmul_precision('highest'):
      hidden = encoder.apply(
        {'params': params['encoder']},
        input_ids,
        token_type_ids,
        positions,
        attention_mask,
        deterministic=True,
      )  # [b, l, D]
      if config.pooling == 'mean':
        vectors = heads_lib.average_segments(hidden, attention_mask, 1)[:, 0]
      else:
        vectors = hidden[:, 0]

      def pool(x: jax.Array, name: str) -> jax.Array:
        if name not in of.pools:
          return x
        return pooler.apply({'params': params['pooler']}, x, deterministic=True)

      return {
        task.name: dense(
          pool(hidden, 'tokens')
          if task.kind.per_token
          else pool(vectors, config.pooling),
          params['heads'][task.name],
        )
        for task in tasks
      }

  return logits
