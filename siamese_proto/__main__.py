"""`python -m siamese_proto` is the command siamese-proto."""

from siamese_proto.cli import main

if __name__ == "__main__":
    main(prog_name="python -m siamese_proto")
