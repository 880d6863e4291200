"""Operations by command: `bin/pulsegate --help`. Talks to an installation from outside; imports no service."""
