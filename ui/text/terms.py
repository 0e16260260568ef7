"""Words that the engine passes as values of messages, or that reports look up: single terms, each translated on its own."""

TERMS = (
    # kinds of methods, in "unknown {kind} '{name}'"
    "rule", "baseline", "repair", "objective", "tracker",
    # sides of a comparison, and texts
    "the source", "the plan", "english", "korean", "Iterative",
    # cost levels in a report
    "It costs very little", "It has a small but measurable cost", "It has a clear cost",
    "It has a heavy cost: unlikely to be useful without retraining", "It is effectively broken: most of what the "
                                                                     "source knew is lost",
    # the states of a layer in a report's picture
    "kept", "kept unchanged", "folded", "other layers fold into it; it keeps its position and its norms", "absorbed",
    "absorbed: its projections become part of the layer it folds into", "dropped", "dropped: removed entirely",
    # facts and numbers of a report
    "calibration", "practice", "evaluation", "versions", "trials", "similarity", "name", "texts", "fingerprint", "not a number",
    "too large for a number",
)  # fmt: skip
