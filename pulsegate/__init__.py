"""Operations by command: `python -m pulsegate --help`. Talks to an installation from outside; imports no service."""
