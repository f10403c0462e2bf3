"""The Cloud TPU scripts, with a stand-in for gcloud that plays a cloud."""

from pathlib import Path
import subprocess

import launching
import pytest

# Notes each call; of those that ask, it gives the next line of a file.
_GCLOUD = """here=$(dirname "$0")
next() {
  head -n 1 "${here}/$1"
  sed -i 1d "${here}/$1"
}
case "$*" in
  *queued-resources\\ describe*)
    state=$(next states)
    if [[ "${state}" == NOT_FOUND ]]; then
      echo 'ERROR: NOT_FOUND: no x' >&2
      exit 1
    fi
    echo "${state}"
    ;;
  *bam.status*) next statuses ;;
  *queued-resources\\ create*) echo create >>"${here}/calls" ;;
  *queued-resources\\ delete*) echo delete >>"${here}/calls" ;;
  *scp*) echo copy >>"${here}/calls" ;;
  *ssh*) echo begin >>"${here}/calls" ;;
esac
"""


def _watch(
  directory: Path, states: str, statuses: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
  """Watches a VM through some states of its request and of its program."""
  launching.program(directory, 'gcloud', _GCLOUD)
  launching.program(directory, 'sleep', '')
  (directory / 'states').write_text(states.replace(' ', '\n') + '\n')
  (directory / 'statuses').write_text(statuses.replace(' ', '\n') + '\n')
  done = launching.run(
    'tpu_queue.sh',
    '--spot',
    *('bam', 'us-east1-c', 'v5litepod-8', 'v2-alpha-tpuv5-lite'),
    'configs/bam.py',
    path=directory,
  )
  calls = directory / 'calls'
  return done, calls.read_text().split() if calls.exists() else []


@pytest.mark.parametrize(
  ('states', 'statuses', 'status', 'calls'),
  [
    (
      'NOT_FOUND NOT_FOUND WAITING_FOR_RESOURCES ACTIVE ACTIVE ACTIVE',
      'idle running 0',
      0,
      'create copy begin',
    ),
    (
      'ACTIVE ACTIVE SUSPENDING SUSPENDED NOT_FOUND ACTIVE ACTIVE',
      'running idle 0',
      0,
      'delete create copy begin',
    ),
    ('ACTIVE ACTIVE ACTIVE ACTIVE', 'idle 75 0', 0, 'copy begin copy begin'),
    ('ACTIVE ACTIVE ACTIVE', 'idle 2', 2, 'copy begin'),
    # What an earlier command has left there is not this one's.
    ('ACTIVE ACTIVE ACTIVE', '2 0', 0, 'copy begin'),
    # A machine that went down and came up again has nothing running.
    ('ACTIVE ACTIVE ACTIVE ACTIVE', 'idle idle 1', 1, 'copy begin copy begin'),
    ('FAILED FAILED', '', 2, ''),
  ],
  ids=['new', 'taken', '75', 'mistake', 'old-status', 'rebooted', 'failed'],
)
def test_what_is_done_about_a_vm(tmp_path, states, statuses, status, calls):
  done, called = _watch(tmp_path, states, statuses)
  assert done.returncode == status, done.stderr
  assert called == calls.split()


def test_a_gcloud_that_refuses_is_one_line_and_no_request(tmp_path):
  launching.program(tmp_path, 'gcloud', 'echo "ERROR: log in" >&2; exit 1')
  done = launching.run(
    'tpu_queue.sh', *('bam', 'z', 't', 'v'), 'configs/bam.py', path=tmp_path
  )
  assert done.returncode == 2
  assert done.stderr.splitlines() == [
    'launch/tpu_queue.sh: ERROR: log in',
    'launch/tpu_queue.sh: gcloud does not answer; fix what it says',
  ]


# Carries out on this machine what it would on each host of the TPU VM.
_HERE = """last=${!#}
case "$*" in
  *\\ scp\\ *) cp "$5" "${HOME}/bam-jax.tar" ;;
  *\\ ssh\\ *) cd "${HOME}" && bash -c "${last#--command=}" ;;
esac
"""


def test_a_host_runs_the_last_commit_and_says_how_it_ended(tmp_path):
  """The copy, the host's script and its log are real; Python is told to end."""
  home = tmp_path / 'home'
  tools = tmp_path / 'tools'
  venv = home / 'bam-jax' / '.venv' / 'bin'
  for directory in (venv, tools):
    directory.mkdir(parents=True)
  launching.program(tools, 'gcloud', _HERE)
  launching.program(
    tools,
    'tmux',
    '[[ "$1" != has-session ]] || exit 1\nshift 4\nexec "$@"\n',
  )
  launching.program(venv, 'pip', 'exit 0')
  launching.program(venv, 'python', 'printf "[%s]" "$@"; exit 75')
  done = launching.run(
    'tpu_vm.sh',
    '--slice',
    *(
      'bam',
      'us-east1-c',
      'configs/bam.py',
      '--config.note=it\'s "a" \\ $HOME',
    ),
    path=tools,
    environment={'HOME': str(home)},
  )
  assert done.returncode == 0, done.stderr
  assert (home / 'bam-jax' / 'bam.status').read_text() == '75\n'
  assert (
    (home / 'bam-jax' / 'bam.log')
    .read_text()
    .endswith(
      '[-m][bam_jax.main][--config=configs/bam.py][--distributed=auto]'
      '[--config.note=it\'s "a" \\ $HOME]'
    )
  )
  assert (home / 'bam-jax' / 'bam_jax' / 'main.py').is_file()


def test_a_config_that_is_in_no_commit_is_not_copied(tmp_path):
  own = tmp_path / 'own.py'
  own.write_text('')
  done = launching.run('tpu_vm.sh', '--dry-run', 'bam', 'zone', str(own))
  assert done.returncode == 2
  assert 'is not in the last commit' in done.stderr
