"""Texts of the tab groups, of the current plan's strip, and of Recover."""

TEXT: dict[str, str] = {
    # groups of tabs
    "group_look": "Look",
    "group_cut": "Cut",
    "group_judge": "Judge",
    "group_recover": "Recover",
    "group_export": "Export",
    "importance": "Importance",
    "widths": "Width",
    "masks": "Weights",
    "recover": "Recover",
    # the strip of the plan
    "making_depth": "{depth} of {source} layers",
    "making_heads": "{count} of {all} query heads",
    "making_neurons": "{count} of {all} neurons",
    "making_channels": "{count} of {all} channels",
    "making_refit": "solved again",
    "making_bias": "biases for what was cut",
    "making_redistributed": "pruned heads redistributed",
    "making_learned": "learned while it was chosen",
    "making_repaired": "seams repaired: {count} ({kind})",
    "making_solved": "layers after seams solved again",
    "making_masks": "{share} % of the weights are zero ({method})",
    "making_whole": "full width",
    "making_dense": "no mask",
    "making_size": "{parameters} M parameters, {bytes}",
    "making": "The plan being made",
    # Recover
    "recover_read": "Give back what pruning lost, without training: each repair is fitted on practice texts, judged on others, and kept only where text that is held out improves.",
    "repair_refit": "Solve the layers after a seam again",
}  # fmt: skip
