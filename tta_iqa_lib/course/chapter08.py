"""Chapter 8, the loop: its checkers."""

from .checker import Wrong, checker


@checker("ex08_1")
def ex08_1(episodic):
    """`episodic(start, batches, adapt, score) -> [scores]`: every batch starts from the same state."""

    def adapt(state, batch):  # writes into the state it is given, as optimisers do
        state["shift"] = state["shift"] + sum(batch)
        return state

    def score(state, batch):
        return [x + state["shift"] for x in batch]

    batches = [[1.0, 2.0], [10.0], [1.0, 2.0]]
    expected = [[4.0, 5.0], [20.0], [4.0, 5.0]]
    start = {"shift": 0.0}
    scores = [list(s) for s in episodic(start, batches, adapt, score)]
    if scores == [list(b) for b in batches]:
        raise Wrong("these are the scores before adapting; adapt to a batch first, then score it")
    if scores == [[4.0, 5.0], [23.0], [17.0, 18.0]] or scores == [[17.0, 18.0], [26.0], [17.0, 18.0]]:
        raise Wrong("the state leaks from one batch into the next: batches 1 and 3 are equal, their scores are not")
    if scores == [[1.0, 2.0], [13.0], [14.0, 15.0]]:
        raise Wrong("each batch is scored with the state of the batch before it")
    if scores != expected:
        raise Wrong(f"for the batches {batches} the scores should be {expected}; yours are {scores}")
    if start != {"shift": 0.0}:
        raise Wrong(
            "the scores are right, but `start` was changed: `adapt` writes into what it gets, so give it a copy"
        )
