"""Words that the engine passes as values of messages, or that reports look up: single terms, each translated on its own."""

TERMS = (
    # kinds of methods, in "unknown {kind} '{name}'"
    "rule", "baseline", "repair", "objective", "tracker",
    # sides of a comparison, and texts
    "the source", "the plan", "english", "korean", "Iterative",
    # what a report says a plan costs
    "It costs very little", "It has a small but measurable cost", "It has a clear cost",
    "It has a heavy cost: unlikely to be useful without retraining", "In effect it is broken: most of what the source knew is gone",
    # the states of a layer in a report's picture
    "kept", "kept as it is", "folded", "other layers fold into it; it keeps its place and its norms", "absorbed",
    "absorbed: its projections live on in the layer it folds into", "dropped", "dropped: nothing of it is left",
    # facts and numbers of a report
    "calibration", "practice", "evaluation", "versions", "trials", "similarity", "name", "texts", "fingerprint", "not a number",
    "beyond any number",
)  # fmt: skip
