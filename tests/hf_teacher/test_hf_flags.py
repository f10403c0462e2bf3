"""Flags that `bam-jax-hf-teacher` refuses; needs no torch."""

import re

from absl import flags
from absl.testing import flagsaver
import pytest

from bam_jax import errors
from bam_jax.hf_teacher import command


@pytest.fixture(autouse=True)
def _flags():
  with flagsaver.flagsaver():
    yield
  flags.FLAGS.unparse_flags()


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--model_name_or_path=x', "'model_name_or_path'; here it is --model"),
    ('--fp16', "'fp16'; here it is --dtype=float16"),
    ('--bf16', "'bf16'; here it is --dtype=bfloat16"),
    ('--per-device-eval-batch-size=8', "-size'; here it is --batch_size"),
    ('--output_dir=x', "'output_dir'; here it is --output"),
    ('--max_seq_length=9', "'max_seq_length'; here it is --max_length"),
    ('--use_cpu', "'use_cpu'; here it is --device=cpu"),
    ('--seed=1', "'seed'; here it is config.seeds (docs/guides/moving.md)"),
    (
      '--workdir=x',
      '--workdir: is not a flag of this command; here it is --outp',
    ),
    ('--mode=run', '--mode: is not a flag of this command; leave it out'),
    ('--group=a', '--group: is not a flag of this command; leave it out'),
    ('--keep=id', '--keep: is not a flag of this command; leave it out'),
    ('--port=1', '--port: is not a flag of this command; leave it out'),
    ('--verbosity=0', '--config is missing; see --help'),
    ('--output=x', '--config is missing; see --help'),
  ],
)
def test_a_flag_of_another_command(argument, message):
  with pytest.raises(errors.UserError) as caught:
    command.parse(['bam-jax-hf-teacher', argument])
  assert message in str(caught.value)


def test_the_names_that_messages_give_are_flags_of_this_command():
  by_module = flags.FLAGS.flags_by_module_dict()
  own = {flag.name for flag in by_module[command.__name__]}
  for text in command.TRAINER_NAMES.values():
    assert re.match(r'--(\w+)', text)[1] in {'task', 'output', *own}
