"""Single bits of a finished plan flipped, one of each kind of file."""

from benchmarks import bit_flips


def test_a_flipped_bit_is_found_or_harmless(tmp_path, capsys):
  """It exits with 1 where a flip changed a result or ended in a traceback."""
  bit_flips.main([f'--workdir={tmp_path / "work"}', '--flips=6', '--seed=1'])
  said = capsys.readouterr().out
  assert said.count('found') + said.count('harmless') > 6
