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
    "making_refit": "refitted",
    "making_bias": "biases compensate pruned parts",
    "making_redistributed": "pruned heads redistributed",
    "making_learned": "trained with the masks",
    "making_repaired": "seams repaired: {count} ({kind})",
    "making_solved": "layers after seams refitted",
    "making_masks": "{share} % of the weights are zero ({method})",
    "making_whole": "full width",
    "making_dense": "no mask",
    "making_size": "{parameters} M parameters, {bytes}",
    "making": "Current plan",
    # Recover
    "recover_read": "Recover part of the loss without training: each repair is fitted on practice texts and kept only "
                    "where it improves held-out text.",
    "repair_refit": "Refit the layers after a seam",
}  # fmt: skip
