"""`orion completion`: a script that lets bash, and zsh in bash's way, complete commands and their parameters. Pure."""

from collections.abc import Iterable

from orion import requests

_SCRIPT = """\
# In ~/.bashrc: eval "$(orion completion)"; zsh wants before it: autoload -U bashcompinit && bashcompinit
_orion() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} command= name= words= at
  for ((at = 1; at < COMP_CWORD; at++)); do
    case ${{COMP_WORDS[at]}} in
      --instance-id|--broker|--config|--timeout) ((at++)); [[ ${{COMP_WORDS[at]}} == = ]] && ((at++)) ;;
      -*) ;;
      *) if [[ -z $command ]]; then command=${{COMP_WORDS[at]}}; else name=${{name:-${{COMP_WORDS[at]}}}}; fi ;;
    esac
  done
  COMPREPLY=()
  case $command:$name in
    :) words="{commands}" ;;
    ctl:) words="{names}" ;;
{parameters}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ ${{COMPREPLY[0]}} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}}
complete -o default -F _orion orion
"""


def script(commands: Iterable[str]) -> str:
    """Return the script; `commands` are those of the command line."""
    parameters = [
        f'    ctl:{name}) words="{" ".join(f"{key}=" for key in schema.model_fields)}" ;;'
        for name, schema in requests.SCHEMAS.items()
        if schema.model_fields and name != "update_config"
    ]
    return _SCRIPT.format(
        commands=" ".join(commands), names=" ".join(requests.SCHEMAS), parameters="\n".join(parameters)
    )
