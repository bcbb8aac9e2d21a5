"""`python -m gluon_bn` is the command `gluon-bn`."""

from gluon_bn.cli import main

if __name__ == "__main__":
    main()
