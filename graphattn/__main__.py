"""`python -m graphattn`, as the command `graphattn`."""

from graphattn.cli import app

if __name__ == "__main__":
    app()
