import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamese_proto.errors import ParseError
from siamese_proto.proto.reader import parse_net, parse_solver, read_message, unknown_problems
from siamese_proto.proto.writer import write_net, write_solver

WORDS = (
    '{ } < > [ ] : ; , # - . \\ \' "x" 1 0x inf \u00e9 \ufeff \0 \ud800 layer layers type: name: padding conv '
    "CONVOLUTION pad:-1 pool:MIN input:'q' input_dim:3 input_shape{ solver_type: blobs_lr: param{ "
    "layers{layer{type:'pool'}}"
)
PIECES = st.sampled_from([*WORDS.split(" "), " ", "\n", "\r", "\t"])
TEXTS = st.lists(PIECES, max_size=40).map(lambda pieces: "".join(pieces) + "\n")


def refused(problem: ParseError) -> None:
    assert problem.location is not None
    assert "\n" not in str(problem)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(TEXTS)
def test_any_net_is_read_and_written_or_refused_in_one_line(text: str) -> None:
    try:
        parsed = parse_net(text)
    except ParseError as problem:
        refused(problem)
        return
    again, source = read_message(write_net(parsed), type(parsed.message))
    assert again == parsed.message
    assert len(source.unknown) == len(unknown_problems(parsed))


@settings(deadline=None, max_examples=100)
@given(TEXTS)
def test_any_solver_is_read_and_written_or_refused_in_one_line(text: str) -> None:
    try:
        parsed = parse_solver(text)
    except ParseError as problem:
        refused(problem)
        return
    again, source = read_message(write_solver(parsed), type(parsed.message))
    assert again == parsed.message
    assert len(source.unknown) == len(unknown_problems(parsed))
