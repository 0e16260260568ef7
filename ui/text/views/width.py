"""Texts of Width."""

TEXT: dict[str, str] = {
    "width_read": "Reduce the width of the plan shown: every layer keeps the same number of query heads, neurons and "
                  "channels, so the checkpoint is an ordinary smaller model. The size follows the sliders at once; "
                  "Trim selects by the score and measures the cost.",
    "width_by_sliders": "by sliders",
    "target_bytes": "maximum MB of weights",
    "width_amount_info": "The number of neurons follows; layers, heads and channels do not change.",
    "width_parameters": "{count} parameters",
    "width_met": "{target} allows at most {count} of {all} neurons per layer.",
    "width_unmet": "Pruning neurons alone cannot reach {target}: one neuron per layer still leaves {least}. Prune "
                   "heads, channels or layers too.",
    "width_heads": "Query heads per layer",
    "width_heads_info": "Each KV group keeps the same number; keys and values are kept.",
    "width_neurons": "Neurons per layer",
    "width_neurons_info": "In the MLP, between the up and down projections.",
    "width_channels": "Channels",
    "width_channels_info": "In the residual stream, the same in all layers. Channels cost most: reduce the others "
                           "first.",
    "width_compensation": "Projections that read pruned parts",
    "width_compensation_info": "refit: solved in closed form on practice text, kept where held-out text improves. bias "
                         "(FLAP): the mean of the pruned parts, if the family has biases (its few parameters are not "
                         "counted here). Nothing: trimming as in the papers.",
    "width_compensation_refit": "refit",
    "width_compensation_bias": "add a bias (FLAP)",
    "width_compensation_nothing": "nothing",
    "width_redistribute": "Redistribute pruned heads",
    "width_redistribute_info": "Minitron's method: the least important kept heads are merged with pruned heads. It is "
                               "meant for retraining; without retraining the demo model became far worse.",
    "width_arm_refit": "refitted",
    "width_arm_bias": "bias",
    "width_plain": "Keep norm gains unchanged",
    "width_plain_info": "As in Minitron's channel pruning. Otherwise the gains are scaled to compensate for the "
                        "smaller width.",
    "width_button": "Trim",
    "width_curves": "Measure the cost of width",
    "width_curves_none": "No cost is measured yet. A few widths of each axis are measured on the model as opened, "
                         "those nearest to the sliders first; a cancel keeps the results so far.",
    "width_curves_from": "One axis at a time, on the model as opened; the dotted line is the slider. maw (OptiPFair) "
                         "scores only neurons.",
    "job_width-costs": "Measuring the cost of width",
    "waiting_widthcosts": "Open a model to measure the cost of its widths.",
    "width_kv": "KV cache of 4096 tokens",
    "width_illegal": "{family} needs a number of channels divisible by {heads} heads; the nearest is {nearest}.",
    "width_fixed": "{axis} of this family cannot be pruned: {reason}.",
    "width_no_amount": "Enter a target above 0.",
    "width_whole_numbers": "Heads, neurons and channels must be whole numbers.",
    "width_uneven": "Each of the {groups} KV groups keeps the same number of query heads: choose a multiple of "
                    "{groups}.",
    "width_shown": "The plan shown is already trimmed. The sliders refer to the model as opened, and a new trim "
                   "replaces the previous one.",
    "width_nothing": "Nothing is pruned yet.",
    "width_picture": "A block with its pruned parts: attention above, MLP below; each bar is as wide as the model's "
                     "matrices",
    "width_attention": "attention, {count} of {all} heads",
    "width_mlp": "MLP, {count} of {all} neurons",
    "width_stream": "stream, {count} of {all} channels",
    "job_trim": "Trimming",
}  # fmt: skip
